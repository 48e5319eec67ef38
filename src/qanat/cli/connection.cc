#include "qanat/cli/connection.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "qanat/api/error.h"
#include "qanat/api/tokens.h"
#include "qanat/base/file_system.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/cli/config.h"
#include "qanat/cli/local_server.h"
#include "qanat/net/resolver.h"
#include "qanat/net/tls.h"

namespace qanat::cli {
namespace {

constexpr size_t kMaxAnswer = 64u << 20;  // of JSON

class HttpConnection : public Connection {
 public:
  HttpConnection(std::string server, std::string token, std::string origin,
                 std::string token_origin, net::Url url, net::TlsFactory tls)
      : url_(std::move(url)),
        token_origin_(std::move(token_origin)),
        client_(net::ClientOptions{.resolver = net::system_resolver(), .tls = std::move(tls)}) {
    server_ = std::move(server);
    token_ = std::move(token);
    origin_ = std::move(origin);
  }

  Result<std::string> call(std::string_view route, const Parameters& parameters,
                           const Parameters& query, std::string body) override {
    net::ClientRequest request = prepare(route, parameters, query);
    if (!body.empty()) request.headers.set("Content-Type", "application/json");
    request.body = std::move(body);
    QANAT_ASSIGN_OR_RETURN(auto answer, exchange(request));
    return answer->read_all(kMaxAnswer);
  }

  Result<std::string> upload(std::string_view route, const Parameters& parameters,
                             const Parameters& query, net::BodySource body,
                             std::string_view content_type,
                             std::optional<uint64_t> length) override {
    net::ClientRequest request = prepare(route, parameters, query);
    request.headers.set("Content-Type", std::string(content_type));
    request.source = std::move(body);
    request.source_length = length;
    // The server works on what it was sent before it answers.
    request.idle_timeout = net::Milliseconds(600'000);
    QANAT_ASSIGN_OR_RETURN(auto answer, exchange(request));
    return answer->read_all(kMaxAnswer);
  }

  Result<std::string> exchange_bytes(std::string_view route, const Parameters& parameters,
                                     std::string body) override {
    net::ClientRequest request = prepare(route, parameters, {});
    request.headers.set("Content-Type", "application/octet-stream");
    request.body = std::move(body);
    QANAT_ASSIGN_OR_RETURN(auto answer, exchange(request));
    return answer->read_all(kMaxAnswer);
  }

  Result<std::string> pass_file(std::string_view route, const Parameters& parameters,
                                const Parameters& query, int file) override {
    net::ClientRequest request = prepare(route, parameters, query);
    request.unix_socket = local_socket();
    if (request.unix_socket.empty()) return failed_precondition("the server is elsewhere");
    request.descriptor = file;
    request.idle_timeout = net::Milliseconds(600'000);
    QANAT_ASSIGN_OR_RETURN(auto answer, exchange(request));
    return answer->read_all(kMaxAnswer);
  }

  Result<std::unique_ptr<net::ClientResponse>> download(std::string_view route,
                                                        const Parameters& parameters,
                                                        const Parameters& query,
                                                        std::string_view range) override {
    net::ClientRequest request = prepare(route, parameters, query);
    if (!range.empty()) request.headers.set("Range", std::string(range));
    return exchange(request);
  }

  Status events(std::string_view route, const Parameters& parameters, const Parameters& query,
                const std::function<Result<bool>(const net::Event&)>& visit) override {
    net::ClientRequest request = prepare(route, parameters, query);
    request.headers.set("Accept", "text/event-stream");
    QANAT_ASSIGN_OR_RETURN(auto answer, exchange(request));
    net::EventReader reader(*answer);
    while (true) {
      QANAT_ASSIGN_OR_RETURN(const auto event, reader.next());
      if (!event) return ok_status();
      if (event->name == "error") return decode_error(event->data, 500);
      QANAT_ASSIGN_OR_RETURN(const bool more, visit(*event));
      if (!more) return ok_status();
    }
  }

 private:
  net::ClientRequest prepare(std::string_view route, const Parameters& parameters,
                             const Parameters& query) const {
    net::ClientRequest request;
    request.method = api::find_route(route)->method;
    request.url = url_;
    request.url.path = api::route_path(route, parameters);
    net::Query encoded;
    for (const auto& [name, value] : query) encoded.add(name, value);
    request.url.query_text = encoded.encode();
    if (!token_.empty()) request.headers.set("Authorization", "Bearer " + token_);
    return request;
  }

  Result<std::unique_ptr<net::ClientResponse>> exchange(const net::ClientRequest& request) {
    auto answer = client_.send(request);
    if (!answer.ok()) {
      if (answer.code() == Code::kUnavailable) {
        return unavailable(
            str_cat("no Qanat server answers at ", server_, ": ", answer.status().message()),
            str_cat("The address comes from ", origin_,
                    ". Start a server with `qanat serve`, or name another with --server."));
      }
      return answer.status();
    }
    if ((*answer)->ok()) return answer;
    QANAT_ASSIGN_OR_RETURN(const std::string text, (*answer)->read_all(1u << 20));
    return decode_error(text, (*answer)->status());
  }

  Status decode_error(const std::string& text, int status) const {
    if (!api::parse_json<api::ErrorBody>(text, {.ignore_unknown = true}).ok()) {
      return unavailable(
          str_cat(server_, " answered with HTTP status ", status, ", not as a Qanat server does"),
          "check the address, and what is between you and the server");
    }
    const Status error = api::status_from_answer(status, text);
    if (error.code() != Code::kUnauthenticated || !error.hint().empty()) return error;
    return {error.code(), error.message(),
            str_cat(token_.empty() ? "No token was given for it, and none was found."
                                   : str_cat("The token comes from ", token_origin_, "."),
                    " Give another with --token or QANAT_TOKEN.")};
  }

  // "" if there is none. Asked for once; who comes meanwhile waits.
  std::string local_socket() {
    MutexLock lock(mutex_);
    if (!local_socket_) local_socket_ = find_local_socket();
    return *local_socket_;
  }

  std::string find_local_socket() {
    const auto address = net::IpAddress::parse(url_.host);
    if (url_.scheme != "http" || !(url_.host == "localhost" || (address && address->is_loopback())))
      return "";
    const auto info = get<api::VersionInfo>("version", {});
    if (!info.ok() || info->socket.empty()) return "";
    // A server that is reached through a tunnel names a path of its own machine. What is there on
    // this one may be something else: no token goes to what others own, and no file to another
    // server.
    struct stat found{};
    if (lstat(info->socket.c_str(), &found) != 0 || !S_ISSOCK(found.st_mode) ||
        found.st_uid != geteuid()) {
      return "";
    }
    net::ClientRequest request = prepare("version", {}, {});
    request.unix_socket = info->socket;
    const auto answer = exchange(request);
    if (!answer.ok()) return "";
    const auto text = (*answer)->read_all(kMaxAnswer);
    if (!text.ok()) return "";
    const auto there = api::parse_json<api::VersionInfo>(*text, {.ignore_unknown = true});
    if (!there.ok() || there->installation != info->installation) return "";
    return info->socket;
  }

  const net::Url url_;
  const std::string token_origin_;
  net::HttpClient client_;
  Mutex mutex_;
  std::optional<std::string> local_socket_ GUARDED_BY(mutex_);
};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Which of several is meant only the user can know.
Result<LocalServer> only_one(const std::vector<LocalServer>& servers) {
  if (servers.empty()) {
    return failed_precondition(
        "no Qanat server is running on this machine for this user",
        "Start one with `qanat serve`, or name one with --server or QANAT_SERVER.");
  }
  if (servers.size() == 1) return servers[0];
  std::string shown;
  for (const LocalServer& server : servers)
    str_append(shown, "\n  ", server.address, "  data folder ", server.data);
  return failed_precondition(
      str_cat(servers.size(), " Qanat servers of this user run on this machine:", shown),
      "Say which with --server ADDRESS or QANAT_SERVER; its token is found by itself.");
}

}  // namespace

Result<std::unique_ptr<Connection>> Connection::open(const ConnectionFlags& flags) {
  std::string server = flags.server;
  std::string token = flags.token;
  std::string origin = "--server";
  std::string token_origin = "--token";
  std::string ca_file;
  if (server.empty() && flags.context.empty()) {
    server = environment("QANAT_SERVER");
    origin = "QANAT_SERVER";
  }
  if (token.empty() && flags.context.empty()) {
    token = environment("QANAT_TOKEN");
    token_origin = "QANAT_TOKEN";
  }
  if (server.empty()) {
    QANAT_ASSIGN_OR_RETURN(const Config config, load_config());
    const std::string name = flags.context.empty() ? config.current : flags.context;
    if (!name.empty()) {
      const auto context = config.contexts.find(name);
      if (context == config.contexts.end()) {
        return not_found(str_cat("there is no context ", quoted(name), " in the configuration"),
                         "`qanat config list` shows the contexts there are");
      }
      server = context->second.server;
      ca_file = context->second.ca_file;
      origin = str_cat("context ", quoted(name));
      if (token.empty()) {
        token = context->second.token;
        token_origin = origin;
      }
    }
  }
  if (!server.empty() && server.find("://") == std::string::npos) server = "http://" + server;
  if (server.empty() || token.empty()) {
    const auto locals = find_local_servers();
    if (server.empty()) {
      QANAT_ASSIGN_OR_RETURN(const LocalServer local, only_one(locals));
      server = local.address;
      origin = str_cat("the server running with data folder ", local.data);
    }
    for (const LocalServer& local : locals) {
      if (!token.empty() || local.address != server) continue;
      token_origin = local.data + "/token";
      const auto text = posix_file_system().read_file(token_origin, 4096);
      if (text.ok()) token = std::string(trim(*text));
    }
  }
  auto url = net::Url::parse(server);
  if (!url.ok()) return url.status().with_context(origin);
  net::TlsFactory tls;
  if (url->scheme == "https") {
    QANAT_ASSIGN_OR_RETURN(tls, net::tls_client({.ca_file = ca_file}));
  }
  return std::unique_ptr<Connection>(
      std::make_unique<HttpConnection>(std::move(server), std::move(token), std::move(origin),
                                       std::move(token_origin), *std::move(url), std::move(tls)));
}

}  // namespace qanat::cli
