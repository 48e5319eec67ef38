// fsck: the check of what is stored of a project.

#include "qanat/api/fsck.h"
#include "qanat/base/string.h"
#include "qanat/content/fsck.h"
#include "qanat/pipeline/fsck_jobs.h"
#include "qanat/serve/http_api.h"
#include "qanat/version/fsck_versions.h"
#include "qanat/version/keys.h"

namespace qanat::serve {
namespace {

constexpr int64_t kProgressMs = 500;
constexpr size_t kMemory = 64u << 20;

Status send(Call& call, const api::FsckEvent& event) {
  return call.response.write(
      str_cat("event: ", event.type, "\ndata: ", api::json_text(event), "\n\n"));
}

int64_t number(uint64_t value) { return static_cast<int64_t>(value); }

// Runs on the handler's thread: whoever asks for it waits for it.
Status fsck(Call& call) {
  const std::string project = call.project();
  QANAT_ASSIGN_OR_RETURN(const auto found, call.state.meta->get(version::project_key(project)));
  if (!found) return not_found(str_cat("there is no project ", project));
  QANAT_ASSIGN_OR_RETURN(const bool data, call.query().get_bool("data"));

  version::FsckVersions versions(*call.state.meta);
  pipeline::FsckJobs jobs(*call.state.meta);
  content::FsckContext context;
  context.project = project;
  context.meta = call.state.meta;
  context.objects = call.state.objects;
  context.sources = {&versions, &jobs};
  context.file_system = call.state.scratch.file_system;
  context.scratch = call.state.scratch.directory;
  context.memory_budget = kMemory;
  // What is put again is then stored again.
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content, call.state.contents->project(project));
  context.on_damaged = [content](const chunk::BlobRef& ref, const chunk::PackId& pack) {
    content->blobs().note_damaged(ref, pack);
  };

  call.response.headers().set("Content-Type", "text/event-stream");
  QANAT_RETURN_IF_ERROR(call.response.start(200, std::nullopt));
  std::string phase;
  int64_t told_ms = 0;
  content::FsckOptions options;
  options.data = data;
  options.on_progress = [&](const content::FsckProgress& progress) -> Status {
    const int64_t now = call.state.clock->monotonic_ms();
    if (phase == progress.phase && now - told_ms < kProgressMs) return ok_status();
    phase = progress.phase;
    told_ms = now;
    if (call.request.client_gone()) return cancelled("the client has gone");
    api::FsckEvent event;
    event.type = "progress";
    event.progress = api::FsckProgress{phase, number(progress.done), number(progress.total)};
    return send(call, event);
  };
  options.on_problem = [&](const content::FsckProblem& problem) {
    api::FsckEvent event;
    event.type = "problem";
    event.problem =
        api::FsckProblem{problem.what, problem.where, problem.touches, number(problem.touched)};
    return send(call, event);
  };
  const auto summary = content::fsck(context, options);
  api::FsckEvent last;
  if (summary.ok()) {
    last.type = "done";
    last.summary = api::FsckSummary{project,
                                    number(summary->records),
                                    number(summary->segments),
                                    number(summary->packs),
                                    number(summary->nodes),
                                    number(summary->chunks),
                                    number(summary->bytes),
                                    number(summary->problems),
                                    summary->truncated};
  } else {
    last.type = "failed";
    last.error = summary.status().message();
  }
  QANAT_RETURN_IF_ERROR(send(call, last));
  return call.response.finish();
}

}  // namespace

void add_fsck_handlers(Handlers& handlers) { handlers["fsck"] = fsck; }

}  // namespace qanat::serve
