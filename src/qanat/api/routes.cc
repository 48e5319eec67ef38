#include "qanat/api/routes.h"

#include <algorithm>

#include "qanat/api/address.h"
#include "qanat/api/commit_sets.h"
#include "qanat/api/types.h"
#include "qanat/base/string.h"

namespace qanat::api {
namespace {

using net::Method;

#define QANAT_PROJECT "/api/v1/projects/{project}"
#define QANAT_REPO QANAT_PROJECT "/repos/{repo}"
#define QANAT_PIPELINE QANAT_PROJECT "/pipelines/{pipeline}"
#define QANAT_JOB QANAT_PIPELINE "/jobs/{job}"

const QueryParameter kPage{"page", "string", "`next` of the page before."};
const QueryParameter kLimit{"limit", "integer", "Items a page, at most 1000. Default: 100."};
const QueryParameter kNeededRef{"ref", "string", "Branch or commit, with ancestry (^, ^2, .3).",
                                true};
const QueryParameter kPath{"path", "string", "A path; default: the root."};
const QueryParameter kForce{"force", "boolean", "Although others depend on it."};
const QueryParameter kSetRepo{"repo", "string", "Where the commit is, if it started no wave."};
const QueryParameter kRecursive{"recursive", "boolean",
                                "Also commits of other changes that were made from these."};
const QueryParameter kNow{"now", "boolean", "Not into the trash: it cannot be brought back."};
const QueryParameter kWriteRef{"ref", "string",
                               "A branch (made when missing) or the id of an open commit."};
const QueryParameter kDescription{"description", "string",
                                  "Description of the commit that this makes."};
const QueryParameter kReprocess{"reprocess", "boolean", "Run all datums, whatever was computed."};
constexpr std::string_view kInside =
    "A reader of the output needs to be reader of the inputs, too: their content shows.";
const QueryParameter kKeepResults{"keep_results", "boolean", "Accept earlier results as they are."};

std::vector<Route> project_routes() {
  return {
      {"list_projects",
       Method::kGet,
       "/api/v1/projects",
       "Lists projects.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<ProjectInfo>>,
       200,
       {},
       "Those in which the token may do something."},
      {"create_project", Method::kPost, "/api/v1/projects", "Creates a project.", Right::kAdmin, "",
       BodyKind::kJson, &type_of<ProjectInfo>, BodyKind::kJson, &type_of<ProjectInfo>, 201},
  };
}

std::vector<Route> maintenance_routes() {
  return {
      {"collect_garbage", Method::kPost, QANAT_PROJECT "/garbage-collection",
       "Begins a garbage collection.", Right::kAdmin, "", BodyKind::kJson,
       &type_of<CollectGarbageRequest>, BodyKind::kJson, &type_of<CollectionInfo>},
      {"inspect_collection", Method::kGet, QANAT_PROJECT "/garbage-collection",
       "Shows the garbage collection that runs, or the last one.", Right::kAdmin, "",
       BodyKind::kNone, nullptr, BodyKind::kJson, &type_of<CollectionInfo>},
      {"list_trash",
       Method::kGet,
       QANAT_PROJECT "/trash",
       "Lists what was deleted and can be brought back.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<TrashInfo>>,
       200,
       {},
       "Of repos that the token may read."},
      {"undelete_repo", Method::kPost, QANAT_REPO "/undelete", "Brings a deleted repo back.",
       Right::kWriter, "repo", BodyKind::kNone, nullptr, BodyKind::kNone, nullptr, 204},
      {"undelete_branch", Method::kPost, QANAT_REPO "/branches/{branch}/undelete",
       "Brings a deleted branch back.", Right::kWriter, "repo", BodyKind::kNone, nullptr,
       BodyKind::kNone, nullptr, 204},
      {"squash_commit",
       Method::kPost,
       QANAT_PROJECT "/commits/{commit}/squash",
       "Takes the commits of an id out of history; their children stay as they are.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<RemovedCommits>,
       200,
       {kSetRepo, kRecursive, kNow},
       "Needs writer of the repos of users among them, and operator of the pipelines."},
      {"drop_commit",
       Method::kPost,
       QANAT_PROJECT "/commits/{commit}/drop",
       "Takes the commits of an id, which have no children, out; branches go back.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<RemovedCommits>,
       200,
       {kSetRepo, kRecursive, kNow},
       "Needs writer of the repos of users among them, and operator of the pipelines."},
      {"undelete_commit", Method::kPost, QANAT_PROJECT "/commits/{commit}/undelete",
       "Brings squashed or dropped commits back, by their id.", Right::kAdmin, "", BodyKind::kNone,
       nullptr, BodyKind::kNone, nullptr, 204},
      {"inspect_maintenance", Method::kGet, "/api/v1/maintenance",
       "Says whether the installation is paused.", Right::kToken, "", BodyKind::kNone, nullptr,
       BodyKind::kJson, &type_of<MaintenanceInfo>},
      {"pause", Method::kPost, "/api/v1/maintenance/pause", "Makes the installation read-only.",
       Right::kAdmin, "", BodyKind::kJson, &type_of<PauseRequest>, BodyKind::kJson,
       &type_of<MaintenanceInfo>},
      {"resume", Method::kPost, "/api/v1/maintenance/resume", "Ends a pause.", Right::kAdmin, "",
       BodyKind::kJson, &type_of<PauseRequest>, BodyKind::kJson, &type_of<MaintenanceInfo>},
  };
}

std::vector<Route> repo_routes() {
  return {
      {"create_repo",
       Method::kPost,
       QANAT_PROJECT "/repos",
       "Creates a repo.",
       Right::kToken,
       "",
       BodyKind::kJson,
       &type_of<CreateRepoRequest>,
       BodyKind::kJson,
       &type_of<RepoInfo>,
       201,
       {},
       "Needs writer of the repo's name."},
      {"list_repos",
       Method::kGet,
       QANAT_PROJECT "/repos",
       "Lists repos.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<RepoInfo>>,
       200,
       {kPage, kLimit},
       "Those that the token may read."},
      {"inspect_repo", Method::kGet, QANAT_REPO, "Shows a repo.", Right::kReader, "repo",
       BodyKind::kNone, nullptr, BodyKind::kJson, &type_of<RepoInfo>},
      {"update_repo", Method::kPut, QANAT_REPO, "Changes a repo's description.", Right::kWriter,
       "repo", BodyKind::kJson, &type_of<UpdateRepoRequest>, BodyKind::kJson, &type_of<RepoInfo>},
      {"delete_repo",
       Method::kDelete,
       QANAT_REPO,
       "Deletes a repo with all its commits.",
       Right::kWriter,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kNone,
       nullptr,
       204,
       {kForce, kNow}},

      {"list_branches",
       Method::kGet,
       QANAT_REPO "/branches",
       "Lists branches.",
       Right::kReader,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<BranchInfo>>,
       200,
       {kPage, kLimit}},
      {"inspect_branch", Method::kGet, QANAT_REPO "/branches/{branch}", "Shows a branch.",
       Right::kReader, "repo", BodyKind::kNone, nullptr, BodyKind::kJson, &type_of<BranchInfo>},
      {"put_branch", Method::kPut, QANAT_REPO "/branches/{branch}",
       "Creates a branch or moves its head.", Right::kWriter, "repo", BodyKind::kJson,
       &type_of<PutBranchRequest>, BodyKind::kJson, &type_of<BranchInfo>},
      {"delete_branch",
       Method::kDelete,
       QANAT_REPO "/branches/{branch}",
       "Deletes a branch; its commits stay.",
       Right::kWriter,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kNone,
       nullptr,
       204,
       {kForce, kNow}},
  };
}

std::vector<Route> commit_routes() {
  return {
      {"start_commit", Method::kPost, QANAT_REPO "/commits", "Opens a commit.", Right::kWriter,
       "repo", BodyKind::kJson, &type_of<StartCommitRequest>, BodyKind::kJson, &type_of<CommitInfo>,
       201},
      {"list_commits",
       Method::kGet,
       QANAT_REPO "/commits",
       "Lists commits, newest first.",
       Right::kReader,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<CommitInfo>>,
       200,
       {{"ref", "string", "From this commit back along its parents; default: all of the repo."},
        {"from", "string", "Stop before this ref."},
        kPage,
        kLimit}},
      {"delete_commit", Method::kDelete, QANAT_REPO "/commits/{ref}", "Throws an open commit away.",
       Right::kWriter, "repo", BodyKind::kNone, nullptr, BodyKind::kNone, nullptr, 204},
      {"wait_commit", Method::kGet, QANAT_REPO "/commits/{ref}/wait",
       "As wait_wave, of what is downstream of this commit; of a pipeline's repo, of a job: the "
       "one "
       "of this id, or the newest for its output branch.",
       Right::kReader, "repo", BodyKind::kNone, nullptr, BodyKind::kEvents, &type_of<ChangeEvent>},
      {"inspect_commit", Method::kGet, QANAT_REPO "/commits/{ref}", "Shows a commit.",
       Right::kReader, "repo", BodyKind::kNone, nullptr, BodyKind::kJson, &type_of<CommitInfo>},
      {"finish_commit", Method::kPost, QANAT_REPO "/commits/{ref}/finish",
       "Closes a commit; pipelines downstream start.", Right::kWriter, "repo", BodyKind::kJson,
       &type_of<FinishCommitRequest>, BodyKind::kJson, &type_of<CommitInfo>},
  };
}

std::vector<Route> file_routes() {
  return {
      {"edit_files",
       Method::kPost,
       QANAT_REPO "/edits",
       "Puts, appends, deletes and copies files: all or nothing, one commit.",
       Right::kWriter,
       "repo",
       BodyKind::kFileStream,
       nullptr,
       BodyKind::kJson,
       &type_of<CommitInfo>,
       200,
       {kWriteRef,
        kDescription,
        {"upload", "string", "The upload whose chunks the edits name; it ends with them."},
        {"path", "string",
         "Of a tar (Content-Type application/x-tar): the directory it is put in."},
        {"append", "boolean", "Of a tar: append its files to what is there."}},
       "The body is a FileStream, or a tar with the type application/x-tar. A conflict that says "
       "that content is not there: send the chunks again, and then the edits."},
      {"begin_upload",
       Method::kPost,
       QANAT_PROJECT "/uploads",
       "Begins an upload.",
       Right::kToken,
       "",
       BodyKind::kJson,
       &type_of<BeginUploadRequest>,
       BodyKind::kJson,
       &type_of<UploadInfo>,
       201,
       {},
       "Needs writer of the repo. Only the token that began an upload may use it."},
      {"upload_have",
       Method::kPost,
       QANAT_PROJECT "/uploads/{upload}/have",
       "Asks which chunks need not be sent.",
       Right::kToken,
       "",
       BodyKind::kBytes,
       nullptr,
       BodyKind::kBytes,
       nullptr,
       200,
       {},
       "The body: SHA-256 hashes of chunks, 32 bytes each, at most 65,536. The answer: a byte for "
       "each, 1 if it need not be sent. Answered for the whole project if the token may read all "
       "of "
       "it, else for what this upload sent."},
      {"upload_chunks",
       Method::kPost,
       QANAT_PROJECT "/uploads/{upload}/chunks",
       "Sends chunks.",
       Right::kToken,
       "",
       BodyKind::kBytes,
       nullptr,
       BodyKind::kBytes,
       nullptr,
       200,
       {},
       "The body: for each chunk a u32 of its length, a u64 of its XXH3-64 (both little-endian) "
       "and "
       "its bytes, cut as docs/formats.md says; at most 65,536 chunks and 64 MiB. The answer, once "
       "they are durable: their SHA-256 hashes, 32 bytes each."},
      {"upload_file",
       Method::kPost,
       QANAT_PROJECT "/uploads/{upload}/file",
       "Has the server read a file that is passed to it open.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kBytes,
       nullptr,
       200,
       {{"offset", "integer", "Where to begin; default 0. The end of a chunk, or 0."},
        {"length", "integer",
         "About how many bytes to take; default, and at most, 256 MiB. Ends with a chunk."}},
       "Only through the server's Unix socket, with the descriptor of a regular file beside the "
       "request's header (SCM_RIGHTS). The answer, once the chunks are durable: a byte, 1 if the "
       "file ends there; a u64, how many bytes were not there yet; then for each chunk a u32 of "
       "its length and its SHA-256."},
      {"end_upload", Method::kDelete, QANAT_PROJECT "/uploads/{upload}",
       "Ends an upload. What no commit refers to is collected later.", Right::kToken, "",
       BodyKind::kNone, nullptr, BodyKind::kNone, nullptr, 204},
      {"put_file",
       Method::kPut,
       QANAT_REPO "/files/{path...}",
       "Writes a file.",
       Right::kWriter,
       "repo",
       BodyKind::kBytes,
       nullptr,
       BodyKind::kJson,
       &type_of<CommitInfo>,
       200,
       {kWriteRef,
        {"append", "boolean", "Append to what is there instead of replacing it."},
        kDescription}},
      {"put_url",
       Method::kPost,
       QANAT_REPO "/put-url",
       "Has the server fetch a file from a URL.",
       Right::kWriter,
       "repo",
       BodyKind::kJson,
       &type_of<PutUrlRequest>,
       BodyKind::kJson,
       &type_of<CommitInfo>,
       200,
       {kWriteRef, kDescription}},
      {"get_file",
       Method::kGet,
       QANAT_REPO "/files/{path...}",
       "Reads a file; Range is honoured. ETag is its content id.",
       Right::kReader,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kBytes,
       nullptr,
       200,
       {kNeededRef}},
      {"delete_file",
       Method::kDelete,
       QANAT_REPO "/files/{path...}",
       "Deletes a file, or a directory with all it holds.",
       Right::kWriter,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<CommitInfo>,
       200,
       {kWriteRef, kDescription}},
      {"list_files",
       Method::kGet,
       QANAT_REPO "/list",
       "Lists a directory.",
       Right::kReader,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<FileInfo>>,
       200,
       {kNeededRef, kPath, kPage, kLimit}},
      {"glob_files",
       Method::kGet,
       QANAT_REPO "/glob",
       "Lists the files and directories that a pattern matches.",
       Right::kReader,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<FileInfo>>,
       200,
       {kNeededRef, {"pattern", "string", "A glob.", true}, kPage, kLimit}},
      {"stat_file",
       Method::kGet,
       QANAT_REPO "/stat",
       "Shows a file or directory.",
       Right::kReader,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<FileInfo>,
       200,
       {kNeededRef, kPath}},
      {"archive",
       Method::kGet,
       QANAT_REPO "/archive",
       "Reads a subtree, or what a glob matches, as one stream.",
       Right::kReader,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kFileStream,
       nullptr,
       200,
       {kNeededRef, kPath, {"pattern", "string", "A glob, instead of `path`."}}},
      {"diff_files",
       Method::kGet,
       QANAT_REPO "/diff",
       "Lists what differs between two commits.",
       Right::kReader,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<FileDiff>>,
       200,
       {kNeededRef,
        {"base", "string", "The commit to compare with; default: the parent of `ref`."},
        {"base_repo", "string", "Its repo, readable with the same token; default: the same."},
        kPath,
        kPage,
        kLimit}},
      {"file_history",
       Method::kGet,
       QANAT_REPO "/history",
       "Lists the commits that changed a path, newest first.",
       Right::kReader,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<FileChange>>,
       200,
       {kNeededRef, kPath, kPage, kLimit}},
  };
}

std::vector<Route> wave_routes() {
  return {
      {"list_waves",
       Method::kGet,
       QANAT_PROJECT "/waves",
       "Lists waves, newest first.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<WaveInfo>>,
       200,
       {kPage, kLimit},
       "Shows of each wave what the token may see."},
      {"inspect_wave",
       Method::kGet,
       QANAT_PROJECT "/waves/{wave}",
       "Shows the commits and jobs of a wave.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<WaveInfo>,
       200,
       {},
       "Shows what the token may see."},
      {"wait_wave",
       Method::kGet,
       QANAT_PROJECT "/waves/{wave}/wait",
       "Tells the jobs of a wave as they go on, then `done`.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kEvents,
       &type_of<ChangeEvent>,
       200,
       {{"repo", "string", "Only what is downstream of this repo's commit, its own job included."}},
       "Shows what the token may see."},
      {"provenance",
       Method::kGet,
       QANAT_PROJECT "/provenance",
       "What a commit was made from, and what was made from it.",
       Right::kReader,
       "repo",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<ProvenanceInfo>,
       200,
       {{"repo", "string", "The repo.", true}, kNeededRef},
       "Commits of unreadable repos are left out."},
      {"events",
       Method::kGet,
       QANAT_PROJECT "/events",
       "Waves, commits and jobs as they happen.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kEvents,
       &type_of<ChangeEvent>,
       200,
       {{"revision", "integer", "From after this revision on (a list's); default: from now on."}},
       "Shows what the token may see."},
  };
}

std::vector<Route> pipeline_routes() {
  return {
      {"create_pipelines",
       Method::kPost,
       QANAT_PROJECT "/pipelines",
       "Creates pipelines from one or several specs, JSON or YAML.",
       Right::kToken,
       "",
       BodyKind::kText,
       nullptr,
       BodyKind::kJson,
       &type_of<List<PipelineInfo>>,
       201,
       {},
       "Needs operator of each name and reader of its inputs; network-host for `network: host`. "
       "All "
       "specs are checked before the first is created."},
      {"update_pipelines",
       Method::kPut,
       QANAT_PROJECT "/pipelines",
       "Gives pipelines new specs; those that do not exist are created.",
       Right::kToken,
       "",
       BodyKind::kText,
       nullptr,
       BodyKind::kJson,
       &type_of<List<PipelineInfo>>,
       200,
       {kReprocess, kKeepResults},
       "As create_pipelines."},
      {"validate_pipelines", Method::kPost, QANAT_PROJECT "/pipelines:validate",
       "Says of each field of the given specs what becomes of it; changes nothing.", Right::kToken,
       "", BodyKind::kText, nullptr, BodyKind::kJson, &type_of<ValidateResponse>},
      {"list_pipelines",
       Method::kGet,
       QANAT_PROJECT "/pipelines",
       "Lists pipelines.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<PipelineInfo>>,
       200,
       {kPage, kLimit},
       "Those that the token may see."},
      {"inspect_pipeline",
       Method::kGet,
       QANAT_PIPELINE,
       "Shows a pipeline.",
       Right::kObserver,
       "pipeline",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<PipelineInfo>,
       200,
       {{"version", "integer", "The spec of an earlier version."}}},
      {"delete_pipeline",
       Method::kDelete,
       QANAT_PIPELINE,
       "Deletes a pipeline and its jobs.",
       Right::kOperator,
       "pipeline",
       BodyKind::kNone,
       nullptr,
       BodyKind::kNone,
       nullptr,
       204,
       {kForce, {"keep_repo", "boolean", "Keep its output repo."}}},
      {"start_pipeline", Method::kPost, QANAT_PIPELINE "/start", "Starts a stopped pipeline.",
       Right::kOperator, "pipeline", BodyKind::kNone, nullptr, BodyKind::kJson,
       &type_of<PipelineInfo>},
      {"stop_pipeline", Method::kPost, QANAT_PIPELINE "/stop", "Stops a pipeline.",
       Right::kOperator, "pipeline", BodyKind::kNone, nullptr, BodyKind::kJson,
       &type_of<PipelineInfo>},
  };
}

std::vector<Route> job_routes() {
  return {
      {"list_jobs",
       Method::kGet,
       QANAT_PROJECT "/jobs",
       "Lists jobs, newest first.",
       Right::kToken,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<JobInfo>>,
       200,
       {{"pipeline", "string", "Only of this pipeline."},
        {"wave", "string", "Only of this wave."},
        {"state", "string", "Only in this state."},
        kPage,
        kLimit},
       "Those that the token may see."},
      {"inspect_job", Method::kGet, QANAT_JOB, "Shows a job.", Right::kObserver, "pipeline",
       BodyKind::kNone, nullptr, BodyKind::kJson, &type_of<JobInfo>},
      {"wait_job", Method::kGet, QANAT_JOB "/wait",
       "As wait_wave, of this job and what is downstream of it.", Right::kObserver, "pipeline",
       BodyKind::kNone, nullptr, BodyKind::kEvents, &type_of<ChangeEvent>},
      {"stop_job", Method::kPost, QANAT_JOB "/stop", "Kills a job.", Right::kOperator, "pipeline",
       BodyKind::kNone, nullptr, BodyKind::kJson, &type_of<JobInfo>},
      {"list_datums",
       Method::kGet,
       QANAT_JOB "/datums",
       "Lists a job's datums in their order.",
       Right::kObserver,
       "pipeline",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<List<DatumInfo>>,
       200,
       {{"state", "string", "Only in this state."},
        {"path", "string", "Only those with an input of this path."},
        kPage,
        kLimit},
       kInside},
      {"inspect_datum",
       Method::kGet,
       QANAT_JOB "/datums/{datum}",
       "Shows a datum.",
       Right::kObserver,
       "pipeline",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<DatumInfo>,
       200,
       {},
       kInside},
      {"explain_datum",
       Method::kGet,
       QANAT_JOB "/datums/{datum}/explain",
       "Why a datum ran or was skipped, from records.",
       Right::kObserver,
       "pipeline",
       BodyKind::kNone,
       nullptr,
       BodyKind::kJson,
       &type_of<DatumExplanation>,
       200,
       {},
       kInside},
      {"logs",
       Method::kGet,
       QANAT_PROJECT "/logs",
       "Log lines of a pipeline, job or datum, a JSON object each (a line, or an event if "
       "followed).",
       Right::kObserver,
       "pipeline",
       BodyKind::kNone,
       nullptr,
       BodyKind::kEvents,
       &type_of<LogLine>,
       200,
       {{"pipeline", "string", "The pipeline.", true},
        {"job", "string", "Only of this job."},
        {"datum", "string", "Only of this datum."},
        {"follow", "boolean", "Go on with lines as they come, until the job ends."},
        {"tail", "integer", "Only the last so many lines."}},
       kInside},
  };
}

std::vector<Route> server_routes() {
  return {
      {"create_token", Method::kPost, "/api/v1/tokens", "Creates a token.", Right::kAdmin, "",
       BodyKind::kJson, &type_of<CreateTokenRequest>, BodyKind::kJson,
       &type_of<CreateTokenResponse>, 201},
      {"list_tokens", Method::kGet, "/api/v1/tokens", "Lists tokens.", Right::kAdmin, "",
       BodyKind::kNone, nullptr, BodyKind::kJson, &type_of<List<TokenInfo>>},
      {"delete_token", Method::kDelete, "/api/v1/tokens/{token}",
       "Ends a token, and the rights of the pipelines created with it.", Right::kAdmin, "",
       BodyKind::kNone, nullptr, BodyKind::kNone, nullptr, 204},
      {"fsck",
       Method::kGet,
       QANAT_PROJECT "/fsck",
       "Checks what is stored of a project: streams progress and problems.",
       Right::kAdmin,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kEvents,
       &type_of<FsckEvent>,
       200,
       {{"data", "boolean", "Reads all packs too, and hashes every blob."}},
       "The last event is done, or failed. It changes nothing, and runs beside writers."},
      {"whoami", Method::kGet, "/api/v1/whoami", "Shows the token of this request.", Right::kToken,
       "", BodyKind::kNone, nullptr, BodyKind::kJson, &type_of<WhoAmI>},
      {"version", Method::kGet, "/api/v1/version", "Shows the server's version.", Right::kToken, "",
       BodyKind::kNone, nullptr, BodyKind::kJson, &type_of<VersionInfo>},
      {"openapi", Method::kGet, "/api/v1/openapi.json", "This document.", Right::kPublic, "",
       BodyKind::kNone, nullptr, BodyKind::kJson, &type_of<RawJson>},
      {"healthz", Method::kGet, "/healthz", "200 when the server is ready.", Right::kPublic, "",
       BodyKind::kNone, nullptr, BodyKind::kText, nullptr},
      {"metrics", Method::kGet, "/metrics", "Counters in the text format of Prometheus.",
       Right::kAdmin, "", BodyKind::kNone, nullptr, BodyKind::kText, nullptr},
  };
}

std::vector<Route> worker_routes() {
  return {
      {"worker_hello", Method::kPost, "/worker/v1/hello", "A worker introduces itself.",
       Right::kPublic, "", BodyKind::kJson, &type_of<HelloRequest>, BodyKind::kJson,
       &type_of<HelloAnswer>},
      {"worker_lease", Method::kPost, "/worker/v1/lease", "Asks for datums.", Right::kWorker, "",
       BodyKind::kJson, &type_of<LeaseRequest>, BodyKind::kJson, &type_of<LeaseAnswer>},
      {"worker_inputs",
       Method::kGet,
       "/worker/v1/inputs",
       "Reads datums' input files.",
       Right::kWorker,
       "",
       BodyKind::kNone,
       nullptr,
       BodyKind::kFileStream,
       nullptr,
       200,
       {{"job", "string", "The job.", true},
        {"datum", "string", "A datum; may be repeated.", true}}},
      {"worker_results",
       Method::kPost,
       "/worker/v1/results",
       "Delivers results.",
       Right::kWorker,
       "",
       BodyKind::kFileStream,
       nullptr,
       BodyKind::kJson,
       &type_of<ResultsAnswer>,
       200,
       {{"job", "string", "The job.", true}}},
      {"worker_renew", Method::kPost, "/worker/v1/renew", "Keeps leases.", Right::kWorker, "",
       BodyKind::kJson, &type_of<RenewRequest>, BodyKind::kJson, &type_of<RenewAnswer>},
      {"worker_logs", Method::kPost, "/worker/v1/logs", "Live log lines.", Right::kWorker, "",
       BodyKind::kJson, &type_of<LogPush>, BodyKind::kNone, nullptr, 204},
  };
}

// Matches a template against a path, segment by segment. Literal segments win over parameters
// because match_route() prefers the route with the most literal characters.
bool match_template(std::string_view pattern, std::string_view path,
                    std::vector<std::pair<std::string_view, std::string_view>>& parameters) {
  parameters.clear();
  while (true) {
    if (pattern.empty() || path.empty()) return pattern.empty() && path.empty();
    if (pattern[0] != '/' || path[0] != '/') return false;
    pattern.remove_prefix(1);
    path.remove_prefix(1);
    std::string_view part = pattern.substr(0, pattern.find('/'));
    if (part.ends_with("...}")) {
      parameters.emplace_back(part.substr(1, part.size() - 5), path);
      return true;
    }
    std::string_view segment = path.substr(0, path.find('/'));
    if (part.starts_with('{')) {
      if (segment.empty()) return false;
      parameters.emplace_back(part.substr(1, part.size() - 2), segment);
    } else if (part != segment) {
      return false;
    }
    pattern.remove_prefix(part.size());
    path.remove_prefix(segment.size());
  }
}

size_t literal_length(std::string_view pattern) {
  size_t length = 0;
  bool inside = false;
  for (char c : pattern) {
    if (c == '{') inside = true;
    if (!inside) ++length;
    if (c == '}') inside = false;
  }
  return length;
}

}  // namespace

const std::vector<Route>& routes() {
  static const auto* const kRoutes = [] {
    auto* all = new std::vector<Route>;
    for (auto part : {project_routes, maintenance_routes, repo_routes, commit_routes, file_routes,
                      wave_routes, pipeline_routes, job_routes, server_routes, worker_routes}) {
      for (Route& route : part()) all->push_back(std::move(route));
    }
    return all;
  }();
  return *kRoutes;
}

Result<RouteMatch> match_route(Method method, std::string_view path, std::string* allowed) {
  if (method == Method::kHead) method = Method::kGet;
  const Route* best = nullptr;
  std::vector<std::pair<std::string_view, std::string_view>> best_parameters;
  std::vector<std::pair<std::string_view, std::string_view>> parameters;
  std::string others;
  for (const Route& route : routes()) {
    if (!match_template(route.path, path, parameters)) continue;
    if (route.method != method) {
      str_append(others, others.empty() ? "" : ", ", net::method_name(route.method));
      continue;
    }
    if (best == nullptr || literal_length(route.path) > literal_length(best->path)) {
      best = &route;
      best_parameters = parameters;
    }
  }
  if (best == nullptr) {
    if (allowed != nullptr) *allowed = others;
    if (!others.empty()) {
      return failed_precondition(str_cat("this path takes ", others, " only"));
    }
    return not_found("there is no such path", "the API is described at /api/v1/openapi.json");
  }
  RouteMatch match;
  match.route = best;
  for (auto& [name, value] : best_parameters) {
    QANAT_ASSIGN_OR_RETURN(std::string decoded, net::percent_decode(value));
    match.parameters.emplace(name, std::move(decoded));
  }
  return match;
}

const Route* find_route(std::string_view id) {
  for (const Route& route : routes()) {
    if (route.id == id) return &route;
  }
  return nullptr;
}

std::string route_path(std::string_view id,
                       const std::map<std::string, std::string, std::less<>>& parameters) {
  const Route* route = find_route(id);
  if (route == nullptr) return "";
  std::string out;
  for (std::string_view part : split(route->path.substr(1), '/')) {
    out += '/';
    if (!part.starts_with('{')) {
      out += part;
      continue;
    }
    bool rest = part.ends_with("...}");
    std::string_view name = part.substr(1, part.size() - (rest ? 5 : 2));
    auto found = parameters.find(name);
    std::string value = found != parameters.end() ? found->second
                        : name == "project"       ? std::string(kDefaultProject)
                                                  : std::string();
    out += rest ? net::encode_path(value) : net::encode_path_segment(value);
  }
  return out;
}

}  // namespace qanat::api
