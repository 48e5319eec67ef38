#include "qanat/cli/config.h"

#include "qanat/base/file_system.h"
#include "qanat/cli/local_server.h"

namespace qanat::cli {
namespace {

Result<std::string> config_path() {
  const std::string folder = config_folder();
  if (folder.empty()) {
    return failed_precondition("there is no home folder to keep a configuration in", "set HOME");
  }
  return folder + "/config.json";
}

}  // namespace

Result<Config> load_config() {
  auto path = config_path();
  if (!path.ok()) return Config{};
  const auto text = posix_file_system().read_file(*path, 1 << 20);
  if (text.code() == Code::kNotFound) return Config{};
  if (!text.ok()) return text.status();
  auto config = api::parse_json<Config>(*text);
  if (!config.ok()) return config.status().with_context(*path);
  return config;
}

Status save_config(const Config& config) {
  QANAT_ASSIGN_OR_RETURN(const std::string path, config_path());
  QANAT_RETURN_IF_ERROR(posix_file_system().make_directories(config_folder()));
  return posix_file_system().write_file_durably(path, api::json_text(config, 2) + "\n");
}

}  // namespace qanat::cli
