#include "experiments/golden/subject.h"

#include <nlohmann/json.hpp>

#include "runtime/core/error.h"

namespace voxlab {

Subject build_subject(const nlohmann::json& record, const GoldenOptions& options) {
  using Build = SubjectParts (*)(const nlohmann::json& config, const nn::Builder& builder);
  constexpr std::pair<std::string_view, Build> networks[] = {
      {"unetr_pp", subject_unetr_pp},
      {"ux_net", subject_ux_net},
      {"levit_unet", subject_levit_unet},
      {"brats_unet", subject_brats_unet},
      {"dae_former", subject_dae_former},
      {"unetr", subject_unetr},
  };
  const std::string net = record.value("net", "");
  for (const auto& [name, build] : networks) {
    if (name != net) continue;
    Subject subject;
    const nn::Builder builder(subject.parameters, {.device = options.device, .dtype = options.dtype});
    SubjectParts parts = build(record.at("config"), builder);
    subject.forward = std::move(parts.forward);
    subject.import_name = std::move(parts.import_name);
    return subject;
  }
  fail("golden", "network '" + net + "' is not known");
}

}  // namespace voxlab
