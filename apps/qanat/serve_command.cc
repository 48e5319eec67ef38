#include "serve_command.h"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <functional>
#include <future>
#include <thread>

#include "content_objects.h"
#include "qanat/api/pipeline_spec.h"
#include "qanat/api/quantity.h"
#include "qanat/base/file_system.h"
#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/cli/local_server.h"
#include "qanat/cli/version.h"
#include "qanat/content/content_store.h"
#include "qanat/meta/sqlite_store.h"
#include "qanat/net/http_server.h"
#include "qanat/net/resolver.h"
#include "qanat/net/tls.h"
#include "qanat/object/caching_object_store.h"
#include "qanat/object/local_object_store.h"
#include "qanat/object/object_store.h"
#include "qanat/pipeline/gc_roots.h"
#include "qanat/pipeline/pipelines.h"
#include "qanat/run/docker_runner.h"
#include "qanat/run/process_runner.h"
#include "qanat/serve/gc_service.h"
#include "qanat/serve/http_api.h"
#include "qanat/serve/maintenance.h"
#include "qanat/serve/worker_gate.h"
#include "qanat/version/gc_roots.h"
#include "qanat/version/session.h"
#include "qanat/version/versions.h"

namespace qanat {
namespace {

constexpr std::string_view kFormatKey = "/v1/format";
constexpr int64_t kFormat = 2;  // 1: without the keys of children
constexpr int kGraceMs = 5000;

struct Options {
  std::string data;
  std::string objects;
  std::string cache;
  std::string listen = "127.0.0.1:7700";
  std::string runner = "docker";
  std::string default_network = "none";
  std::string pull = "missing";
  std::string default_image{api::kDefaultImage};
  std::string worker_program;
  std::string log_level = "info";
  bool allow_private_urls = false;
  bool accept_lost_changes = false;
  int64_t gc_interval_hours = 24;
  int64_t trash_grace_hours = 24;
};

// What the installation is, written once.
struct FormatRecord {
  int64_t v = 1;
  std::string installation;
};
template <class V>
void describe(V& v, FormatRecord& t) {
  v.type("FormatRecord", "");
  v.required("v", t.v, "Version of everything on disk.");
  v.required("installation", t.installation, "");
}

// `expect_new` is asked before an installation is begun.
Result<FormatRecord> open_format(meta::Store& meta, const std::function<Status()>& expect_new) {
  QANAT_ASSIGN_OR_RETURN(const auto found, meta.get(kFormatKey));
  if (!found) {
    QANAT_RETURN_IF_ERROR(expect_new());
    FormatRecord record{kFormat, random_id()};
    QANAT_RETURN_IF_ERROR(meta.commit(meta::Transaction()
                                          .when(meta::key_absent(kFormatKey))
                                          .put(kFormatKey, api::json_text(record)))
                              .status());
    return record;
  }
  QANAT_ASSIGN_OR_RETURN(const auto record,
                         api::parse_json<FormatRecord>(found->value, {.ignore_unknown = true}));
  if (record.v != kFormat) {
    return failed_precondition(
        str_cat("the data folder has format ", record.v, ", this program knows format ", kFormat),
        "use the program that wrote it, or start with a fresh data folder");
  }
  return record;
}

Result<std::string> absolute_folder(std::string path) {
  if (path.empty()) {
    const char* home = std::getenv("HOME");
    if (home == nullptr)
      return invalid_argument("--data is missing, and there is no home folder for the default");
    path = std::string(home) + "/.local/share/qanat";
  }
  QANAT_RETURN_IF_ERROR(posix_file_system().make_directories(path));
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved) == nullptr) return errno_status(errno, path);
  return std::string(resolved);
}

std::string program_folder() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  return length <= 0 ? "." : parent_directory(std::string(path, static_cast<size_t>(length)));
}

// A server, part by part in the order in which they need each other; destroyed in reverse.
class Server {
 public:
  explicit Server(Options options) : options_(std::move(options)) {}
  ~Server() { stop(); }

  Status start() {
    QANAT_ASSIGN_OR_RETURN(data_, absolute_folder(options_.data));
    auto lock = posix_file_system().lock_file(data_ + "/lock");
    if (!lock.ok()) {
      if (lock.code() == Code::kFailedPrecondition)
        return failed_precondition(str_cat("another server uses the data folder ", data_),
                                   "stop it first, or give another --data");
      return lock.status();
    }
    lock_ = *std::move(lock);
    QANAT_RETURN_IF_ERROR(open_stores());
    QANAT_RETURN_IF_ERROR(open_network());
    QANAT_RETURN_IF_ERROR(open_runner());
    return open_pipelines();
  }

  const std::string& address() const { return address_; }
  const std::string& data() const { return data_; }

  void stop() {
    if (!http_) return;
    // What waits for a store that does not answer would outlast any grace.
    std::promise<void> stopped;
    std::thread giving_up([this, done = stopped.get_future()] {
      if (done.wait_for(std::chrono::milliseconds(kGraceMs)) == std::future_status::timeout) {
        objects_->cancel();
      }
    });
    http_->stop(net::Milliseconds(kGraceMs));
    worker_http_->stop(net::Milliseconds(kGraceMs));
    // Streams that ended hand their last work to this pool; nothing new comes.
    if (events_) events_->wait_idle();
    gc_.reset();
    pipelines_.reset();
    gate_.reset();
    worker_http_.reset();
    http_.reset();
    stopped.set_value();
    giving_up.join();
  }

 private:
  Status open_stores() {
    FileSystem& files = posix_file_system();
    Clock& clock = real_clock();
    ContentObjectsOptions objects{options_.objects, data_, "", {}};
    objects.client.resolver = net::system_resolver();
    QANAT_ASSIGN_OR_RETURN(objects.client.tls, net::tls_client({}));
    const auto expect_new = [&] { return expect_no_content(files, objects); };
    // Before a database is made, which would be in the way of one that is put back.
    if (!files.exists(data_ + "/meta/meta.db")) QANAT_RETURN_IF_ERROR(expect_new());
    meta::SqliteOptions meta;
    meta.accept_damaged_log = options_.accept_lost_changes;
    QANAT_ASSIGN_OR_RETURN(meta_, meta::SqliteStore::open(files, clock, data_ + "/meta", meta));
    QANAT_ASSIGN_OR_RETURN(format_, open_format(*meta_, expect_new));
    objects.installation = format_.installation;
    QANAT_ASSIGN_OR_RETURN(objects_, open_content_objects(files, *meta_, objects));
    if (const auto* local = dynamic_cast<object::LocalObjectStore*>(objects_.get()))
      hidden_.push_back(local->root());
    if (!options_.cache.empty()) QANAT_RETURN_IF_ERROR(open_cache());
    scratch_ = {&files, data_ + "/tmp"};
    QANAT_RETURN_IF_ERROR(files.remove_tree(scratch_.directory));
    QANAT_RETURN_IF_ERROR(files.make_directories(scratch_.directory));
    QANAT_ASSIGN_OR_RETURN(session_,
                           version::Session::start(*meta_, clock, str_cat("pid ", getpid())));
    content::ContentOptions content;
    content.pins = session_.get();
    content.now_ms = [&clock] { return clock.wall_ms(); };
    contents_ = content::ContentStores::create(meta_.get(), objects_.get(), content);
    versions_ = std::make_unique<version::Versions>(
        *meta_, clock, [this](std::string_view project) -> Result<content::BlobReader*> {
          QANAT_ASSIGN_OR_RETURN(content::ContentStore * store, contents_->project(project));
          return &store->blobs();
        });
    versions_->set_trash_grace_ms(options_.trash_grace_hours * 3'600'000);
    QANAT_RETURN_IF_ERROR(versions_->start());
    QANAT_ASSIGN_OR_RETURN(maintenance_, serve::Maintenance::start(*meta_, clock));
    tokens_ = std::make_unique<serve::Tokens>(*meta_, clock);
    return write_first_token();
  }

  // --cache FOLDER,SIZE
  Status open_cache() {
    const size_t comma = options_.cache.rfind(',');
    const auto size = comma == std::string::npos
                          ? Result<uint64_t>(invalid_argument(""))
                          : api::parse_size(options_.cache.substr(comma + 1));
    if (!size.ok() || comma == 0) {
      return invalid_argument(str_cat("--cache ", quoted(options_.cache), " is not FOLDER,SIZE"),
                              "such as /var/cache/qanat,50G");
    }
    QANAT_ASSIGN_OR_RETURN(const std::string folder,
                           absolute_folder(options_.cache.substr(0, comma)));
    hidden_.push_back(folder);
    QANAT_ASSIGN_OR_RETURN(objects_, object::CachingObjectStore::open(
                                         std::move(objects_), posix_file_system(), folder, *size));
    return ok_status();
  }

  Status write_first_token() {
    const std::string path = data_ + "/token";
    const auto existing = posix_file_system().read_file(path, 4096);
    if (!existing.ok() && existing.code() != Code::kNotFound) return existing.status();
    QANAT_ASSIGN_OR_RETURN(const std::string secret,
                           tokens_->make_first(existing.ok() ? std::string(trim(*existing)) : ""));
    if (existing.ok() || secret.empty()) return ok_status();
    return posix_file_system().write_file_durably(path, secret + "\n");
  }

  Status open_network() {
    const size_t colon = options_.listen.rfind(':');
    const auto port = colon == std::string::npos ? Result<uint64_t>(invalid_argument(""))
                                                 : parse_u64(options_.listen.substr(colon + 1));
    if (!port.ok() || *port > 65535)
      return invalid_argument(str_cat("--listen ", quoted(options_.listen), " is not HOST:PORT"),
                              "such as 127.0.0.1:7700");
    std::string host = options_.listen.substr(0, colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']')
      host = host.substr(1, host.size() - 2);
    QANAT_ASSIGN_OR_RETURN(http_, net::HttpServer::create({}));
    // Workers have a server of their own: whatever user code does to its sockets, and however long
    // inputs and results travel, the API has its threads.
    QANAT_ASSIGN_OR_RETURN(worker_http_, net::HttpServer::create({.max_handler_threads = 64,
                                                                  .max_connections = 16'384}));
    events_ = std::make_unique<ThreadPool>("events", 4, 65536);
    readers_ = std::make_unique<ThreadPool>("readers",
                                            std::max(2u, std::thread::hardware_concurrency()), 256);
    net::ClientOptions client;
    client.resolver = net::system_resolver();
    QANAT_ASSIGN_OR_RETURN(client.tls, net::tls_client({}));
    client.address_policy = options_.allow_private_urls ? net::any_address() : net::public_only();
    fetcher_ = std::make_unique<net::HttpClient>(std::move(client));
    gate_ = std::make_unique<serve::HttpWorkerGate>(*worker_http_, data_ + "/run");
    // Listening before the pipelines are loaded, so that a taken port is told at once; until then
    // requests get 503.
    const net::Handler handler = [this](net::Request& request, net::Response& response) {
      if (serve::HttpApi* api = api_.load()) {
        api->handle(request, response);
      } else {
        serve::answer_error(response,
                            unavailable("the server is starting", "try again in a moment"));
      }
    };
    auto listener = http_->listen_tcp(host, static_cast<uint16_t>(*port), handler);
    if (!listener.ok())
      return listener.status().with_context(str_cat("listening on ", options_.listen));
    const std::string shown = host.find(':') != std::string::npos ? "[" + host + "]"
                              : host == "0.0.0.0"                 ? "127.0.0.1"
                                                                  : host;
    state_.host = str_cat(shown, ":", http_->port_of(*listener));
    address_ = "http://" + state_.host;
    // For who runs on this machine as this user; without it they send what they could pass.
    const std::string socket = data_ + "/api.sock";
    const auto local = http_->listen_unix(socket, 0600, handler, /*descriptors=*/true);
    if (local.ok()) {
      state_.socket = socket;
    } else {
      log_warning("there is no socket for clients on this machine", {{"error", local.status()}});
    }
    return ok_status();
  }

  Status open_runner() {
    const std::string program = options_.worker_program.empty() ? program_folder() + "/qanat-worker"
                                                                : options_.worker_program;
    if (!posix_file_system().exists(program))
      return not_found(str_cat("the worker's program is not at ", program),
                       "it is built beside qanat: ./dev build");
    QANAT_ASSIGN_OR_RETURN(kind_, api::runner_kind_from_name(options_.runner));
    if (kind_ == api::RunnerKind::kProcess) {
      auto runner = std::make_unique<run::ProcessRunner>(
          run::ProcessRunnerOptions{data_, program, {}, hidden_}, real_clock());
      QANAT_RETURN_IF_ERROR(runner->start());
      runner_ = std::move(runner);
      return ok_status();
    }
    run::DockerRunnerOptions docker;
    docker.data_folder = data_;
    docker.installation_id = format_.installation;
    docker.worker_program = program;
    if (const char* host = std::getenv("DOCKER_HOST"); host != nullptr && host[0] != '\0')
      docker.docker_host = host;
    if (options_.pull != "missing" && options_.pull != "never")
      return invalid_argument(str_cat("--pull ", options_.pull, " is not one of missing, never"));
    docker.pull = options_.pull == "missing";
    auto runner = std::make_unique<run::DockerRunner>(std::move(docker), real_clock());
    runner->start();
    runner_ = std::move(runner);
    return ok_status();
  }

  Status open_pipelines() {
    pipeline::Services services;
    services.meta = meta_.get();
    services.versions = versions_.get();
    services.contents = contents_.get();
    services.runner = runner_.get();
    services.gate = gate_.get();
    services.logs = &logs_;
    services.clock = &real_clock();
    services.scratch = scratch_;
    services.runner_kind = kind_;
    services.default_network = options_.default_network;
    services.default_image = options_.default_image;
    services.leasing_paused = [this] { return maintenance_->paused(); };
    QANAT_ASSIGN_OR_RETURN(pipelines_, pipeline::Pipelines::start(services));
    // Before any worker is served: a token may have been deleted as the last server died.
    QANAT_RETURN_IF_ERROR(
        pipelines_
            ->withdraw_lost([this](const std::string& token) { return tokens_->exists(token); })
            .status());
    gate_->set_hub(&pipelines_->hub());

    version_roots_ = std::make_unique<version::VersionRoots>(*meta_, real_clock(), *versions_);
    job_roots_ = std::make_unique<pipeline::JobRoots>(*meta_, real_clock());
    serve::GcServiceContext gc;
    gc.meta = meta_.get();
    gc.objects = objects_.get();
    gc.contents = contents_.get();
    gc.pins = session_.get();
    gc.clock = &real_clock();
    gc.sources = {version_roots_.get(), job_roots_.get()};
    gc.scratch = {scratch_.file_system, scratch_.directory};
    gc.interval_ms = options_.gc_interval_hours * 3'600'000;
    gc.paused = [this] { return maintenance_->paused(); };
    gc_ = std::make_unique<serve::GcService>(std::move(gc));

    state_.gc = gc_.get();
    state_.maintenance = maintenance_.get();
    state_.trash_grace_ms = options_.trash_grace_hours * 3'600'000;
    state_.meta = meta_.get();
    state_.objects = objects_.get();
    state_.versions = versions_.get();
    state_.contents = contents_.get();
    state_.pipelines = pipelines_.get();
    state_.tokens = tokens_.get();
    state_.clock = &real_clock();
    state_.fetcher = fetcher_.get();
    state_.events = events_.get();
    state_.readers = readers_.get();
    state_.scratch = scratch_;
    state_.runner = options_.runner;
    state_.installation = format_.installation;
    state_.version = cli::kVersion;
    handlers_ = std::make_unique<serve::HttpApi>(state_);
    // Before it answers, so that who waits for that finds it.
    (void)posix_file_system().write_file_durably(data_ + "/address", address_ + "\n");
    cli::announce_local_server({address_, data_, getpid(), {}, {}});
    api_ = handlers_.get();
    return ok_status();
  }

  const Options options_;
  std::string data_;
  std::vector<std::string> hidden_;  // folders besides it that user code must not see
  std::string address_;
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<meta::SqliteStore> meta_;
  FormatRecord format_;
  std::unique_ptr<object::ObjectStore> objects_;
  pipeline::Scratch scratch_;
  std::unique_ptr<version::Session> session_;
  std::unique_ptr<content::ContentStores> contents_;
  std::unique_ptr<version::Versions> versions_;
  std::unique_ptr<serve::Maintenance> maintenance_;
  std::unique_ptr<version::VersionRoots> version_roots_;
  std::unique_ptr<pipeline::JobRoots> job_roots_;
  std::unique_ptr<serve::Tokens> tokens_;
  std::unique_ptr<net::HttpClient> fetcher_;
  pipeline::LiveLogs logs_;
  api::RunnerKind kind_ = api::RunnerKind::kDocker;
  std::unique_ptr<pipeline::Runner> runner_;
  std::unique_ptr<ThreadPool> events_;
  std::unique_ptr<ThreadPool> readers_;
  std::unique_ptr<net::HttpServer> http_;
  std::unique_ptr<net::HttpServer> worker_http_;
  std::unique_ptr<serve::HttpWorkerGate> gate_;
  std::unique_ptr<pipeline::Pipelines> pipelines_;
  std::unique_ptr<serve::GcService> gc_;
  serve::State state_;
  std::unique_ptr<serve::HttpApi> handlers_;
  std::atomic<serve::HttpApi*> api_{nullptr};
};

Status serve_until_signal(const Options& options) {
  QANAT_ASSIGN_OR_RETURN(const LogLevel level, parse_log_level(options.log_level));
  set_log_level(level);
  umask(0077);
  // Blocked before any thread is made, so that only this one receives them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  Server server(options);
  QANAT_RETURN_IF_ERROR(server.start());
  std::puts(str_cat("Qanat ", cli::kVersion, " serves ", server.address(), " from ", server.data())
                .c_str());
  std::puts(str_cat("The first token is in ", server.data(),
                    "/token; `qanat` on this machine finds it by itself.")
                .c_str());
  std::fflush(stdout);
  int received = 0;
  sigwait(&signals, &received);
  std::puts("stopping; workers stay, and are found again by the next start");
  std::fflush(stdout);
  cli::withdraw_local_server(server.data(), getpid());
  server.stop();
  return ok_status();
}

}  // namespace

void add_serve_command(cli::Cli& cli) {
  auto options = std::make_shared<Options>();
  cli.command("serve", "", "Run the server: everything in one process, with a data folder")
      .option("--data", options->data, "The data folder; default: ~/.local/share/qanat")
      .option("--object", options->objects,
              "Where content is kept: a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or "
              "azure://ACCOUNT/CONTAINER/PREFIX (default: in the data folder, or as at the first "
              "start); keys come from the environment, see docs/object-stores.md")
      .option("--cache", options->cache,
              "FOLDER,SIZE: keep what is read from a store far away on a disk here, such as "
              "/var/cache/qanat,50G; of no use for a store in a folder")
      .option("--listen", options->listen,
              "HOST:PORT; port 0 takes a free one (default 127.0.0.1:7700)")
      .option("--runner", options->runner,
              "Where user code runs: docker, or process (this machine's programs, no images)")
      .option("--default-network", options->default_network,
              "Network of pipelines that say nothing: none or host")
      .option("--default-image", options->default_image,
              "Image of pipelines that name none (default ubuntu:20.04, as in Pachyderm)")
      .option(
          "--pull", options->pull,
          "Images that are not there: missing (default) has the engine pull them, never does not")
      .option("--worker-program", options->worker_program,
              "The static qanat-worker; default: beside this program")
      .option("--log-level", options->log_level, "debug, info, warning or error")
      .option("--gc-interval", options->gc_interval_hours,
              "Hours between garbage collections (default 24; 0: only when asked)")
      .option("--trash-grace", options->trash_grace_hours,
              "Hours for which what is deleted can be brought back (default 24; 0: not at all)")
      .flag("--allow-private-urls", options->allow_private_urls,
            "Let `put file` fetch from private, loopback and link-local addresses")
      .flag("--accept-lost-changes", options->accept_lost_changes,
            "Start although the metadata's log is damaged, without the changes behind the damage")
      .example("qanat serve --data ./data")
      .run([options] { return serve_until_signal(*options); });
}

}  // namespace qanat
