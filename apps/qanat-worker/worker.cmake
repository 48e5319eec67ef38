# The worker is static and knows no name service: it must run in any image (busybox, Debian, a lone binary), and must not run
# a line of the image's code in itself. forbidden.cc says why each function is wrapped.
add_executable(qanat-worker ${CMAKE_CURRENT_LIST_DIR}/main.cc ${CMAKE_CURRENT_LIST_DIR}/forbidden.cc)
target_link_libraries(qanat-worker PRIVATE qanat_worker)
set_target_properties(qanat-worker PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
target_compile_options(qanat-worker PRIVATE -ffunction-sections -fdata-sections)
target_link_options(qanat-worker PRIVATE -static -Wl,--gc-sections)
foreach(NAME
    getaddrinfo getnameinfo gethostbyname gethostbyname_r gethostbyname2 gethostbyname2_r gethostbyaddr gethostbyaddr_r
    getservbyname getservbyname_r getservbyport getservbyport_r getprotobyname getprotobyname_r
    getpwnam getpwnam_r getpwuid getpwuid_r getgrnam getgrnam_r getgrgid getgrgid_r getgrouplist initgroups
    iconv_open dlopen dlmopen)
  target_link_options(qanat-worker PRIVATE -Wl,--wrap=${NAME})
endforeach()
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_link_options(qanat-worker PRIVATE -s)
endif()
