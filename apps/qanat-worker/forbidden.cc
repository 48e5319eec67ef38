// Functions that a static program must never reach: the C library would load shared libraries or
// tables of the image (name services, character sets, engines) and run their code as process 1.
// worker.cmake links with --wrap for each of them, so that a call from anywhere, our dependencies
// included, arrives here and ends the program by its name.
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace {

[[noreturn]] void forbidden(const char* name) {
  // Not through stdio: nothing more of this process may be trusted to work.
  static constexpr char kText[] =
      "qanat-worker: a function that loads code of the image was called: ";
  [[maybe_unused]] ssize_t n = ::write(2, kText, sizeof kText - 1);
  n = ::write(2, name, std::strlen(name));
  n = ::write(2, "\n", 1);
  std::abort();
}

}  // namespace

// Arguments do not matter: the functions do not return.
#define QANAT_FORBIDDEN(name) \
  extern "C" void __wrap_##name() { forbidden(#name); }

QANAT_FORBIDDEN(getaddrinfo)
QANAT_FORBIDDEN(getnameinfo)
QANAT_FORBIDDEN(gethostbyname)
QANAT_FORBIDDEN(gethostbyname_r)
QANAT_FORBIDDEN(gethostbyname2)
QANAT_FORBIDDEN(gethostbyname2_r)
QANAT_FORBIDDEN(gethostbyaddr)
QANAT_FORBIDDEN(gethostbyaddr_r)
QANAT_FORBIDDEN(getservbyname)
QANAT_FORBIDDEN(getservbyname_r)
QANAT_FORBIDDEN(getservbyport)
QANAT_FORBIDDEN(getservbyport_r)
QANAT_FORBIDDEN(getprotobyname)
QANAT_FORBIDDEN(getprotobyname_r)
QANAT_FORBIDDEN(getpwnam)
QANAT_FORBIDDEN(getpwnam_r)
QANAT_FORBIDDEN(getpwuid)
QANAT_FORBIDDEN(getpwuid_r)
QANAT_FORBIDDEN(getgrnam)
QANAT_FORBIDDEN(getgrnam_r)
QANAT_FORBIDDEN(getgrgid)
QANAT_FORBIDDEN(getgrgid_r)
QANAT_FORBIDDEN(getgrouplist)
QANAT_FORBIDDEN(initgroups)
QANAT_FORBIDDEN(iconv_open)
QANAT_FORBIDDEN(dlopen)
QANAT_FORBIDDEN(dlmopen)
