// What users change of pipelines: creating, updating, starting, stopping, deleting them, and
// withdrawing their rights.
#include <set>

#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/pipeline/pipelines.h"
#include "qanat/version/keys.h"

namespace qanat::pipeline {
namespace {

constexpr std::string_view kStoppedBefore = "stopped by a user";

std::vector<InputBranch> input_branches(const api::PipelineSpec& spec) {
  std::set<std::pair<std::string, std::string>> seen;
  std::vector<InputBranch> branches;
  for (const api::PfsInput* input : api::pfs_inputs(spec.input)) {
    if (seen.insert({input->repo, input->branch}).second)
      branches.push_back({input->repo, input->branch});
  }
  return branches;
}

std::vector<version::BranchName> provenance_of(const PipelineRecord& record) {
  std::vector<version::BranchName> branches;
  for (const InputBranch& input : record.inputs) branches.push_back({input.repo, input.branch});
  return branches;
}

// Each after those of the text whose output it reads; where that leaves it open, as they stand.
Result<std::vector<api::LoadedSpec>> upstream_first(std::vector<api::LoadedSpec> specs) {
  std::vector<api::LoadedSpec> ordered;
  while (!specs.empty()) {
    auto waits = [&](const api::LoadedSpec& loaded) {
      for (const InputBranch& input : input_branches(loaded.spec)) {
        for (const api::LoadedSpec& other : specs) {
          if (&other != &loaded && other.spec.name == input.repo) return true;
        }
      }
      return false;
    };
    const auto next = std::find_if_not(specs.begin(), specs.end(), waits);
    if (next == specs.end()) {
      std::vector<std::string> names;
      for (const api::LoadedSpec& loaded : specs) names.push_back(loaded.spec.name);
      return invalid_argument(str_cat("each of the pipelines ", join(names, ", "),
                                      " reads the output of another of them"),
                              "a pipeline cannot depend on itself");
    }
    ordered.push_back(std::move(*next));
    specs.erase(next);
  }
  return ordered;
}

}  // namespace

// ---- Creating and updating ----

Result<std::vector<Pipelines::Draft>> Pipelines::check(const std::string& project,
                                                       std::string_view text, bool may_exist,
                                                       const Author& author) {
  QANAT_ASSIGN_OR_RETURN(
      auto loaded, api::load_pipeline_specs(text, {.runner = services_.runner_kind,
                                                   .project = project,
                                                   .default_network = services_.default_network,
                                                   .default_image = services_.default_image}));
  QANAT_ASSIGN_OR_RETURN(loaded, upstream_first(std::move(loaded)));
  std::vector<Draft> drafts;
  for (api::LoadedSpec& spec : loaded) {
    Draft draft;
    draft.loaded = std::move(spec);
    const Status status = check_one(project, draft, drafts, may_exist, author);
    if (!status.ok()) return status.with_context(str_cat("pipeline ", draft.loaded.spec.name));
    drafts.push_back(std::move(draft));
  }
  return drafts;
}

Status Pipelines::check_one(const std::string& project, Draft& draft,
                            const std::vector<Draft>& before, bool may_exist,
                            const Author& author) {
  const api::PipelineSpec& spec = draft.loaded.spec;
  if (spec.project != project) {
    return invalid_argument(
        str_cat("the spec says project ", spec.project, ", the request ", project),
        str_cat("give --project ", spec.project));
  }
  auto require = [&](const std::string& scope) -> Status {
    if (author.may(scope)) return ok_status();
    return permission_denied(
        str_cat("the token ", author.token, " lacks ", scope),
        "A pipeline gets its rights from the token it is created with: use one that has them.");
  };
  QANAT_RETURN_IF_ERROR(require("operator:" + spec.name));
  if (spec.transform.network == "host") QANAT_RETURN_IF_ERROR(require("network-host"));
  QANAT_ASSIGN_OR_RETURN(auto stored, records(project));
  const bool exists = stored.contains(spec.name);
  if (exists && !may_exist)
    return already_exists("it exists already",
                          str_cat("change it with `qanat update pipeline`, or delete it first with "
                                  "`qanat delete pipeline ",
                                  spec.name, "`"));
  for (const InputBranch& input : input_branches(spec)) {
    QANAT_RETURN_IF_ERROR(require("reader:" + input.repo));
    const bool in_text = std::any_of(before.begin(), before.end(), [&](const Draft& d) {
      return d.loaded.spec.name == input.repo;
    });
    if (in_text) continue;
    const auto repo = services_.versions->inspect_repo({project, input.repo});
    if (repo.code() == Code::kNotFound) {
      return not_found(str_cat("its input repo ", input.repo, " does not exist"),
                       str_cat("create it first: `qanat create repo ", input.repo, "`"));
    }
    if (!repo.ok()) return repo.status();
  }
  // The DAG with this spec, and those before it in the text.
  auto add = [&stored](const api::PipelineSpec& s) {
    PipelineRecord record;
    record.output_branch = s.output_branch;
    record.inputs = input_branches(s);
    stored[s.name] = {std::move(record), 0};
  };
  for (const Draft& other : before) add(other.loaded.spec);
  add(spec);
  QANAT_RETURN_IF_ERROR(make_dag(stored, true).status());
  QANAT_ASSIGN_OR_RETURN(draft.image, services_.runner->resolve_image(spec.transform.image));
  const std::vector<std::string>& cmd = spec.transform.cmd;
  if (cmd.empty() && draft.image.entrypoint.empty() && draft.image.cmd.empty()) {
    return invalid_argument(
        "transform.cmd is empty, and the image has no entrypoint or command of its own",
        "give transform.cmd");
  }
  if (!cmd.empty())
    QANAT_RETURN_IF_ERROR(services_.runner->check_command(draft.image, cmd, spec.transform.env,
                                                          spec.transform.working_dir));
  return ok_status();
}

// The record of the next version.
Status Pipelines::prepare(const std::string& project, Draft& draft, const UpdateFlags& flags,
                          const std::string& token) {
  const api::PipelineSpec& spec = draft.loaded.spec;
  SpecRecord& record = draft.spec;
  record.created_ms = services_.clock->wall_ms();
  record.created_by = token;
  record.user_spec = draft.loaded.user_json;
  record.effective_spec = api::effective_spec(spec);
  record.image_digest = draft.image.digest;
  record.image_env = draft.image.env;
  record.image_command = draft.image.entrypoint;
  record.image_command.insert(record.image_command.end(), draft.image.cmd.begin(),
                              draft.image.cmd.end());
  record.image_user = draft.image.user;
  record.image_working_dir = draft.image.working_dir;
  record.keep_results = flags.keep_results;
  record.reprocess = flags.reprocess;
  record.reprocess_salt.clear();
  record.version = 1;
  const auto before = stored(project, spec.name);
  if (before.ok()) {
    record.version = before->record.version + 1;
    QANAT_ASSIGN_OR_RETURN(const auto last,
                           load_spec(*services_.meta, project, spec.name, before->record.version,
                                     services_.runner_kind));
    record.reprocess_salt = last->record.reprocess_salt;
  } else if (before.code() != Code::kNotFound) {
    return before.status();
  }
  if (flags.reprocess) record.reprocess_salt = random_id();
  const TransformComponents components =
      transform_components(spec, record.image_digest, record.reprocess_salt);
  record.components = components_to_text(components);
  record.transform_hash = transform_hash(components).to_hex();
  return ok_status();
}

Result<PipelineChange> Pipelines::put(const std::string& project, Draft draft, bool may_exist,
                                      const UpdateFlags& flags, const Author& author) {
  const api::PipelineSpec spec = draft.loaded.spec;
  const std::string key = pipeline_key(project, spec.name);
  PipelineRecord record;
  bool existed = false;
  WorkerGroupId old_group{project, spec.name, 0};
  QANAT_RETURN_IF_ERROR(
      services_.versions->settle_output(project, {spec.name, spec.output_branch}));
  QANAT_RETURN_IF_ERROR(
      services_.versions
          ->start_wave(
              project,
              [&](int64_t revision) -> Result<version::WaveDraft> {
                QANAT_ASSIGN_OR_RETURN(auto all, records(project, revision));
                const auto old = all.find(spec.name);
                existed = old != all.end();
                if (existed && !may_exist)
                  return already_exists(str_cat("pipeline ", spec.name, " exists already"));
                QANAT_RETURN_IF_ERROR(prepare(project, draft, flags, author.token));
                record = existed ? old->second.record : PipelineRecord{};
                if (existed) old_group.version = static_cast<uint64_t>(record.version);
                const std::string old_branch = record.output_branch;
                if (existed && old_branch != spec.output_branch) {
                  return failed_precondition(str_cat("output_branch cannot change from ",
                                                     old_branch, " to ", spec.output_branch),
                                             "delete the pipeline and create it anew");
                }
                record.version = draft.spec.version;
                record.output_branch = spec.output_branch;
                record.inputs = input_branches(spec);
                record.updated_ms = services_.clock->wall_ms();
                if (!existed) {
                  record.created_ms = record.updated_ms;
                  QANAT_ASSIGN_OR_RETURN(record.last_wave, services_.versions->last_wave(project));
                }
                if (record.withdrawn) {
                  record.stopped = record.withdrawn = false;
                  record.reason.clear();
                } else if (record.stopped && record.rights.empty()) {
                  record.reason = kStoppedBefore;
                }
                if (!author.key.empty()) {
                  QANAT_ASSIGN_OR_RETURN(const auto token, services_.meta->get(author.key));
                  if (!token) {
                    return permission_denied(
                        str_cat("the token ", author.token, " was deleted meanwhile"),
                        "use one that is there");
                  }
                }
                record.rights.clear();
                for (const InputBranch& input : record.inputs)
                  record.rights.push_back({"reader:" + input.repo, author.token});
                record.rights.push_back({"writer:" + spec.name, author.token});
                if (spec.transform.network == "host")
                  record.rights.push_back({"network-host", author.token});
                const int64_t old_revision = existed ? old->second.revision : 0;
                all[spec.name] = {record, old_revision};
                QANAT_ASSIGN_OR_RETURN(const Dag dag, make_dag(all, false));
                version::WaveDraft out;
                out.cause = version::WaveCause::kPipeline;
                out.needs_wave = !record.stopped;
                out.members = {spec.name};
                const RepoBranch output{spec.name, spec.output_branch};
                for (std::string& name : dag.downstream({&output, 1}))
                  out.members.push_back(std::move(name));
                QANAT_ASSIGN_OR_RETURN(out.with, services_.versions->output_branch_transaction(
                                                     project, {spec.name, spec.output_branch},
                                                     spec.name, provenance_of(record)));
                if (!author.key.empty()) out.with.when(meta::key_present(author.key));
                out.with.when(meta::mod_revision_is(key, old_revision))
                    .put(key, encode(record))
                    .put(spec_key(project, spec.name, record.version), encode(draft.spec))
                    .put(dag_key(project), "");
                return out;
              })
          .status());
  if (existed) {
    if (auto controller = find(project, spec.name)) {
      controller->changed(record);
      remove_workers(old_group);
      if (!record.stopped) ensure_workers(controller);
    }
  } else {
    // Not undone when this fails: the pipeline exists, and a restart adopts it.
    QANAT_RETURN_IF_ERROR(adopt(project, {{spec.name, record}}));
  }
  if (!record.stopped) tell_waves_or_try_again(project);
  return PipelineChange{spec.name, record, draft.loaded.notes};
}

Result<std::vector<PipelineChange>> Pipelines::create(const std::string& project,
                                                      std::string_view text, const Author& author) {
  // It may pull images, for which nobody else shall wait. What can change meanwhile is looked at
  // again in put().
  QANAT_ASSIGN_OR_RETURN(auto drafts, check(project, text, false, author));
  MutexLock lock(change_mutex_);
  std::vector<PipelineChange> changes;
  for (Draft& draft : drafts) {
    const std::string name = draft.loaded.spec.name;
    auto change = put(project, std::move(draft), false, {}, author);
    if (!change.ok()) return change.status().with_context(str_cat("pipeline ", name));
    changes.push_back(*std::move(change));
  }
  return changes;
}

Result<std::vector<PipelineChange>> Pipelines::update(const std::string& project,
                                                      std::string_view text,
                                                      const UpdateFlags& flags,
                                                      const Author& author) {
  if (flags.reprocess && flags.keep_results)
    return invalid_argument("--reprocess and --keep-results contradict each other");
  QANAT_ASSIGN_OR_RETURN(auto drafts, check(project, text, true, author));  // as in create()
  MutexLock lock(change_mutex_);
  std::vector<PipelineChange> changes;
  for (Draft& draft : drafts) {
    const std::string name = draft.loaded.spec.name;
    auto change = put(project, std::move(draft), true, flags, author);
    if (!change.ok()) return change.status().with_context(str_cat("pipeline ", name));
    changes.push_back(*std::move(change));
  }
  return changes;
}

// ---- Starting, stopping, deleting ----

Status Pipelines::change(const std::string& project, const std::string& name, bool wave,
                         const std::function<Status(PipelineRecord&)>& edit) {
  PipelineRecord record;
  QANAT_RETURN_IF_ERROR(
      services_.versions
          ->start_wave(project,
                       [&](int64_t revision) -> Result<version::WaveDraft> {
                         QANAT_ASSIGN_OR_RETURN(auto all, records(project, revision));
                         const auto found = all.find(name);
                         if (found == all.end())
                           return not_found(str_cat("there is no pipeline ", name),
                                            "`qanat list pipeline` shows the pipelines there are");
                         record = found->second.record;
                         const int64_t old_revision = found->second.revision;
                         QANAT_RETURN_IF_ERROR(edit(record));
                         found->second.record = record;
                         version::WaveDraft out;
                         out.cause = version::WaveCause::kPipeline;
                         out.needs_wave = wave;
                         if (wave) {
                           QANAT_ASSIGN_OR_RETURN(const Dag dag, make_dag(all, false));
                           out.members = {name};
                           const RepoBranch output{name, record.output_branch};
                           for (std::string& member : dag.downstream({&output, 1}))
                             out.members.push_back(std::move(member));
                         }
                         const std::string key = pipeline_key(project, name);
                         out.with.when(meta::mod_revision_is(key, old_revision))
                             .put(key, encode(record))
                             .put(dag_key(project), "");
                         out.with.may_use_reserve =
                             true;  // stopping must be possible when the disk is full
                         return out;
                       })
          .status());
  const auto controller = find(project, name);
  if (!controller) return ok_status();
  controller->changed(record);
  if (record.stopped) {
    remove_workers(controller->group());
  } else {
    ensure_workers(controller);
  }
  if (wave) tell_waves_or_try_again(project);
  return ok_status();
}

Status Pipelines::start_pipeline(const std::string& project, const std::string& name) {
  MutexLock lock(change_mutex_);
  return change(project, name, true, [&](PipelineRecord& record) -> Status {
    if (!record.stopped) return failed_precondition(str_cat("pipeline ", name, " is not stopped"));
    if (record.rights.empty()) {
      return failed_precondition(
          str_cat("pipeline ", name, " has lost its rights: ", record.reason),
          "update it with a token that has them: `qanat update pipeline -f SPEC`");
    }
    record.stopped = false;
    record.reason.clear();
    return ok_status();
  });
}

Status Pipelines::stop_pipeline(const std::string& project, const std::string& name,
                                const std::string& reason) {
  MutexLock lock(change_mutex_);
  return change(project, name, false, [&](PipelineRecord& record) -> Status {
    if (record.stopped)
      return failed_precondition(str_cat("pipeline ", name, " is stopped already"));
    record.stopped = true;
    record.reason = reason;
    return ok_status();
  });
}

Status Pipelines::delete_pipeline(const std::string& project, const std::string& name,
                                  bool keep_repo, bool force) {
  MutexLock lock(change_mutex_);
  QANAT_RETURN_IF_ERROR(
      services_.versions
          ->start_wave(
              project,
              [&](int64_t revision) -> Result<version::WaveDraft> {
                QANAT_ASSIGN_OR_RETURN(auto all, records(project, revision));
                const auto found = all.find(name);
                if (found == all.end())
                  return not_found(str_cat("there is no pipeline ", name),
                                   "`qanat list pipeline` shows the pipelines there are");
                QANAT_ASSIGN_OR_RETURN(const Dag dag, make_dag(all, true));
                const auto readers = dag.readers(name);
                if (!readers.empty() && !force) {
                  return failed_precondition(
                      str_cat("pipeline ", name, " cannot be deleted: its output is read by ",
                              join(readers, ", ")),
                      "delete those first, or add --force");
                }
                if (!force && !keep_repo) {
                  // Also branches of users. Before anything is gone: the repo goes last.
                  QANAT_ASSIGN_OR_RETURN(const auto derived,
                                         services_.versions->derived_from({project, name}));
                  if (!derived.empty()) {
                    return failed_precondition(
                        str_cat("pipeline ", name, " cannot be deleted: ", join(derived, ", "),
                                derived.size() == 1 ? " derives" : " derive", " from its output"),
                        "delete those first, keep the output with --keep-repo, or add --force");
                  }
                }
                version::WaveDraft out;
                out.needs_wave = false;
                const std::string key = pipeline_key(project, name);
                out.with.may_use_reserve = true;  // it removes
                out.with.when(meta::mod_revision_is(key, found->second.revision))
                    .erase(key)
                    .add(meta::erase_range(meta::KeyRange::prefix(specs_prefix(project, name))))
                    .add(meta::erase_range(meta::KeyRange::prefix(jobs_prefix(project, name))))
                    .put(dag_key(project), "");
                return out;
              })
          .status());
  std::shared_ptr<Controller> controller;
  {
    MutexLock map_lock(mutex_);
    auto& controllers = controllers_[project];
    const auto found = controllers.find(name);
    if (found != controllers.end()) {
      controller = found->second;
      controllers.erase(found);
    }
  }
  if (controller) {
    controller->remove();
    remove_workers(controller->group());
    controller->shut_down();
    if (const auto run = controller->running()) services_.logs->forget(project, name, run->id());
  }
  job_ended(project);
  return keep_repo ? services_.versions->release_repo({project, name}, name)
                   : services_.versions->delete_repo({project, name}, force, name);
}

Result<std::vector<std::string>> Pipelines::withdraw(const std::string& token) {
  return withdraw_if([&](const std::string& name) -> Result<bool> { return name == token; });
}

Result<std::vector<std::string>> Pipelines::withdraw_lost(
    const std::function<Result<bool>(const std::string& token)>& exists) {
  return withdraw_if([&](const std::string& name) -> Result<bool> {
    QANAT_ASSIGN_OR_RETURN(const bool there, exists(name));
    return !there;
  });
}

// By the records, not by the controllers: what is not running yet must not begin, either.
Result<std::vector<std::string>> Pipelines::withdraw_if(
    const std::function<Result<bool>(const std::string& token)>& is_gone) {
  MutexLock lock(change_mutex_);
  std::vector<std::string> stopped;
  std::map<std::string, bool> gone;
  const std::string prefix = version::project_key("");
  QANAT_ASSIGN_OR_RETURN(
      const meta::RangeResult projects,
      services_.meta->range(meta::KeyRange::prefix(prefix), {.keys_only = true}));
  for (const meta::KeyValue& item : projects.items) {
    const std::string project = item.key.substr(prefix.size());
    QANAT_ASSIGN_OR_RETURN(const auto all, records(project));
    for (const auto& [name, found] : all) {
      std::string token;
      for (const GrantedRight& right : found.record.rights) {
        if (!gone.contains(right.granted_by)) {
          QANAT_ASSIGN_OR_RETURN(gone[right.granted_by], is_gone(right.granted_by));
        }
        if (gone[right.granted_by]) token = right.granted_by;
      }
      if (token.empty()) continue;
      QANAT_RETURN_IF_ERROR(change(project, name, false, [&](PipelineRecord& record) -> Status {
        std::erase_if(record.rights, [&](const GrantedRight& r) { return r.granted_by == token; });
        record.withdrawn = record.withdrawn || !record.stopped;
        record.stopped = true;
        record.reason =
            str_cat("its rights were withdrawn: the token ", token,
                    ", which granted them, was deleted; update it with a token that has them");
        return ok_status();
      }));
      stopped.push_back(name);
    }
  }
  return stopped;
}

Status Pipelines::release_if_orphan(const std::string& project, const std::string& repo) {
  MutexLock lock(change_mutex_);
  QANAT_ASSIGN_OR_RETURN(const auto info, services_.versions->inspect_repo({project, repo}));
  const std::string& owner = info.record.pipeline;
  if (owner.empty()) return ok_status();
  const auto pipeline = stored(project, owner);
  if (pipeline.ok()) return ok_status();
  if (pipeline.code() != Code::kNotFound) return pipeline.status();
  return services_.versions->release_repo({project, repo}, owner);
}

}  // namespace qanat::pipeline
