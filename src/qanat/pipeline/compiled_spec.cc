#include "qanat/pipeline/compiled_spec.h"

#include "qanat/base/string.h"
#include "qanat/meta/store.h"

namespace qanat::pipeline {

Result<std::shared_ptr<const CompiledSpec>> compile_spec(SpecRecord record,
                                                         api::RunnerKind runner) {
  auto loaded = api::load_pipeline_specs(record.effective_spec, {.runner = runner});
  if (!loaded.ok() || loaded->size() != 1) {
    return data_loss(str_cat("version ", record.version, " of a pipeline's spec cannot be read: ",
                             loaded.ok() ? "it is not one spec" : loaded.status().message()));
  }
  api::PipelineSpec spec = std::move((*loaded)[0].spec);
  QANAT_ASSIGN_OR_RETURN(InputShape shape, InputShape::make(spec.input));
  QANAT_ASSIGN_OR_RETURN(TransformComponents components, components_from_text(record.components));
  QANAT_ASSIGN_OR_RETURN(const Hash transform, Hash::from_hex(record.transform_hash));
  return std::make_shared<const CompiledSpec>(CompiledSpec{
      std::move(record), std::move(spec), std::move(shape), std::move(components), transform});
}

Result<std::shared_ptr<const CompiledSpec>> load_spec(meta::Store& meta, std::string_view project,
                                                      std::string_view pipeline, int64_t version,
                                                      api::RunnerKind runner) {
  const std::string key = spec_key(project, pipeline, version);
  QANAT_ASSIGN_OR_RETURN(const auto found, meta.get(key));
  if (!found) {
    return not_found(str_cat("pipeline ", pipeline, " has no version ", version, " of its spec"));
  }
  QANAT_ASSIGN_OR_RETURN(SpecRecord record, decode<SpecRecord>(key, found->value));
  return compile_spec(std::move(record), runner);
}

}  // namespace qanat::pipeline
