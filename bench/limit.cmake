# The least work that any program must do: see limit.cc.
add_executable(bench_limit bench/limit.cc)
target_link_libraries(bench_limit PRIVATE qanat_chunk)
