// From records to what the API shows. Pure, but for those that look something up.
#pragma once

#include <string>
#include <string_view>

#include "qanat/api/types.h"
#include "qanat/content/tree.h"
#include "qanat/pipeline/controller.h"
#include "qanat/pipeline/datum_table.h"
#include "qanat/pipeline/records.h"
#include "qanat/serve/call.h"
#include "qanat/serve/state.h"
#include "qanat/serve/tokens.h"
#include "qanat/version/versions.h"

namespace qanat::serve {

api::BranchInfo show(const version::BranchInfo& branch);
api::CommitInfo show(const version::CommitInfo& commit);
// With a leading slash; directories end in one.
api::FileInfo show_file(std::string_view path, const content::TreeEntry& entry);
std::string show_path(std::string_view path, bool is_directory);
api::WaveInfo show(std::string_view project, const version::WaveInfo& wave);

// Whether a caller may see anything of a wave.
bool may_see(const Caller& caller, const std::string& project, const version::WaveInfo& wave);
// As if it were not there, of one of which the caller may see nothing.
Result<version::WaveInfo> find_wave(State& state, const Caller& caller, const std::string& project,
                                    const std::string& id);

// A job from its record; `controller` (may be null) adds what is known of a running one.
api::JobInfo show_job(State& state, const std::string& project, const std::string& pipeline,
                      const pipeline::JobRecord& record, const pipeline::Controller* controller);
// A job that waits for its inputs.
api::JobInfo show_waiting(const pipeline::Controller& controller,
                          const pipeline::Controller::Waiting& waiting);
api::DatumInfo show_datum(const pipeline::JobRecord& job, std::string_view sort_key,
                          const pipeline::DatumRow& row);

// The record of a job by its id, or nothing if it waits or is not there.
Result<std::optional<pipeline::JobRecord>> find_job(State& state, const std::string& project,
                                                    const std::string& pipeline,
                                                    const std::string& id);
// What list and inspect show of it; kNotFound names it.
Result<api::JobInfo> find_job_info(State& state, const std::string& project,
                                   const std::string& pipeline, const std::string& id);

// A list's page.
template <class Shown, class Item, class Show>
api::List<Shown> show_page(const version::Page<Item>& page, Show show) {
  api::List<Shown> list;
  for (const Item& item : page.items) list.items.push_back(show(item));
  list.next = page.next;
  list.revision = page.revision;
  return list;
}

}  // namespace qanat::serve
