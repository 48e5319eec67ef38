#include "qanat/pipeline/explain.h"

#include "qanat/base/string.h"

namespace qanat::pipeline {
namespace {

constexpr size_t kShortHash = 12;
constexpr size_t kShortText = 120;

std::string short_hash(const Hash& hash) { return hash.to_hex().substr(0, kShortHash); }

std::string input_name(const DatumInput& input) { return str_cat(input.name, ":/", input.path); }

std::string describe(const std::vector<DatumInput>& inputs) {
  std::vector<std::string> names;
  for (const DatumInput& input : inputs) names.push_back(input_name(input));
  return join(names, ", ");
}

// "which ran it in 1.2s", with the pipeline if it was another one.
std::string who_ran(const DatumRow& row) {
  const std::string where =
      row.origin_pipeline.empty() ? row.origin : str_cat(row.origin_pipeline, "@", row.origin);
  return str_cat("job ", where, ", which ran it in ", format_duration(row.timings.process_ms));
}

class Explainer {
 public:
  explicit Explainer(const ExplainRequest& request) : request_(request) {}

  Explanation run() {
    out_.compared_with = request_.base_job;
    if (!request_.row) {
      gone();
    } else if (outcome_in(*request_.row, request_.job) == DatumOutcomeInJob::kSkipped) {
      skipped(*request_.row);
    } else if (outcome_in(*request_.row, request_.job) == DatumOutcomeInJob::kReused) {
      reused(*request_.row);
    } else {
      ran(*request_.row);
    }
    return std::move(out_);
  }

 private:
  void say(std::string what, std::string text, std::string before = {}, std::string now = {}) {
    out_.reasons.push_back({std::move(what), std::move(before), std::move(now), std::move(text)});
  }

  void gone() {
    out_.decision = "gone";
    if (request_.base_row) {
      say("removed", str_cat("gone: job ", request_.base_job, " had the datum ",
                             describe(request_.base_row->inputs),
                             ", whose input is no longer there; its output was removed"));
    } else {
      say("unknown",
          str_cat("job ", request_.job, " has no such datum, nor has the job before it"));
    }
  }

  void skipped(const DatumRow& row) {
    out_.decision = "skipped";
    if (row.reason == DatumReason::kKept && row.decided_in == request_.job) {
      say("kept", str_cat("skipped: the code changed, and update pipeline --keep-results accepted "
                          "the result of ",
                          who_ran(row)));
      say_code_changes();
      return;
    }
    say("unchanged", str_cat("skipped: same inputs and code as in ", who_ran(row)));
    if (row.reason == DatumReason::kKept) {
      say("kept", str_cat("that was with other code: update pipeline --keep-results accepted its "
                          "result in job ",
                          row.decided_in));
    }
    for (const DatumInput& input : row.inputs) {
      const std::string hash = short_hash(input.entry.content_id());
      say("input", str_cat("input ", input_name(input), " is the same (sha256 ", hash, "..)"), hash,
          hash);
    }
  }

  void reused(const DatumRow& row) {
    out_.decision = "skipped";
    say("reused", str_cat("skipped: same inputs and code as in ", who_ran(row)));
    say_why(row, "looked up, because ");
  }

  void ran(const DatumRow& row) {
    const bool pending = row.state == DatumState::kPending;
    if (pending && !request_.unrun.empty()) {
      out_.decision = "not run";
      say("killed", request_.unrun);
      say_why(row, "it was to run: ");
      return;
    }
    out_.decision = pending ? "will run" : "ran";
    say_why(row, pending ? "will run: " : "ran: ");
    if (row.reason != DatumReason::kEveryJob) {
      say("result", "no job had a result for these inputs and this code");
    }
    if (pending) return;
    std::string text = str_cat("it ended ", state_name(row.state), " after ", row.attempts,
                               row.attempts == 1 ? " attempt, " : " attempts, ",
                               format_duration(row.timings.process_ms), " in the user's code");
    if (!row.message.empty()) str_append(text, ": ", row.message);
    say("outcome", std::move(text));
  }

  // The reason that the deciding job wrote into the row; the first sentence begins with `prefix`.
  void say_why(const DatumRow& row, std::string_view prefix) {
    const std::string base = request_.base_job.empty() ? "" : str_cat("job ", request_.base_job);
    switch (row.reason) {
      case DatumReason::kNewDatum:
        say("new", base.empty() ? str_cat(prefix, "the datum ", describe(row.inputs),
                                          " is new, as all are in a first job")
                                : str_cat(prefix, "the datum ", describe(row.inputs),
                                          " is new: ", base, " had none of that name"));
        return;
      case DatumReason::kInputChanged:
        say_input_changes(row, prefix);
        say_code_changes();
        return;
      case DatumReason::kCodeChanged:
        if (!say_code_changes(prefix)) {
          say("code",
              str_cat(prefix,
                      "its result was made by other code than this version of the pipeline"));
        }
        return;
      case DatumReason::kNotDone:
        say("tries",
            str_cat(
                prefix, base, " did not finish it",
                request_.base_row ? str_cat(" (", state_name(request_.base_row->state), ")") : ""));
        return;
      case DatumReason::kReprocess:
        say("reprocess",
            str_cat(prefix, "update pipeline --reprocess asked to run every datum again"));
        say_code_changes();
        return;
      case DatumReason::kEveryJob:
        say("every_job",
            str_cat(prefix,
                    "the spec's reprocess_spec is every_job, so every datum runs in every job"));
        if (row.changed_inputs != 0) say_input_changes(row, "");
        return;
      case DatumReason::kKept:
        say("kept", str_cat(prefix, "update pipeline --keep-results accepted its earlier result"));
        return;
    }
  }

  void say_input_changes(const DatumRow& row, std::string_view prefix) {
    bool first = true;
    for (size_t i = 0; i < row.inputs.size() && i < 64; ++i) {
      if ((row.changed_inputs >> i & 1) == 0) continue;
      const DatumInput& input = row.inputs[i];
      const std::string now = short_hash(input.entry.content_id());
      std::string before;
      if (request_.base_row && i < request_.base_row->inputs.size()) {
        before = short_hash(request_.base_row->inputs[i].entry.content_id());
      }
      say("input",
          str_cat(first ? prefix : "", "input ", input_name(input), " changed",
                  before.empty() ? "" : str_cat(" (sha256 ", before, ".. -> ", now, "..)")),
          before, now);
      first = false;
    }
    if (first) say("input", str_cat(prefix, "an input of ", describe(row.inputs), " changed"));
  }

  // False if nothing differs (or nothing is known of the base).
  bool say_code_changes(std::string_view prefix = {}) {
    if (request_.base_job.empty()) return false;
    bool first = true;
    for (const std::string& name : changed_components(request_.base_code, request_.code)) {
      const std::string before = text_of(name, request_.base_texts, request_.base_code);
      const std::string now = text_of(name, request_.texts, request_.code);
      say(name,
          str_cat(first ? prefix : "", name, " changed since job ", request_.base_job, " (", before,
                  " -> ", now, ")"),
          before, now);
      first = false;
    }
    return !first;
  }

  static std::string text_of(const std::string& name,
                             const std::map<std::string, std::string>& texts,
                             const TransformComponents& code) {
    if (const auto text = texts.find(name); text != texts.end()) return text->second;
    const auto hash = code.find(name);
    return hash == code.end() ? "none" : str_cat("sha256 ", short_hash(hash->second), "..");
  }

  const ExplainRequest& request_;
  Explanation out_;
};

// On one line, and not too long. Cut at a character's beginning.
std::string shorten(std::string_view text) {
  std::string out = qanat::quoted(text);
  if (out.size() <= kShortText) return out;
  size_t length = kShortText;
  while (length > 0 && (static_cast<uint8_t>(out[length]) & 0xC0) == 0x80) --length;
  return out.substr(0, length) + "...";
}

}  // namespace

std::string why_unrun(const JobRecord& job) {
  return str_cat("not run: the job ended as ", api::enum_name(job.state),
                 job.reason.empty() ? "" : str_cat(" (", job.reason, ")"));
}

Explanation explain_datum(const ExplainRequest& request) { return Explainer(request).run(); }

std::map<std::string, std::string> component_texts(const api::PipelineSpec& spec,
                                                   std::string_view image_digest) {
  const api::Transform& transform = spec.transform;
  std::map<std::string, std::string> out;
  const auto put = [&](std::string name, std::string_view text) {
    if (!text.empty()) out[std::move(name)] = shorten(text);
  };
  if (!image_digest.empty()) {
    out["transform.image"] = str_cat(transform.image, " ", image_digest.substr(0, 19));
  }
  put("transform.cmd", join(transform.cmd, " "));
  put("transform.stdin", join(transform.stdin_lines, "\n"));
  put("transform.user", transform.user);
  put("transform.working_dir", transform.working_dir);
  put("transform.err_cmd", join(transform.err_cmd, " "));
  put("transform.err_stdin", join(transform.err_stdin, "\n"));
  put("transform.network", transform.network == "none" ? "" : transform.network);
  for (const auto& [name, value] : transform.env) out["transform.env." + name] = shorten(value);
  return out;
}

}  // namespace qanat::pipeline
