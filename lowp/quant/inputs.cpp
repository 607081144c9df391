#include "lowp/quant/inputs.h"

namespace lowp::quant {
namespace {

constexpr std::int64_t kGramBytes = std::int64_t{2} << 30;  // of all Gram matrices that are held at a time

std::shared_ptr<const ops::InputStats> look_up(const Inputs& inputs, const std::string& module) {
  const auto at = inputs.find(module);
  return at == inputs.end() ? nullptr : at->second;
}

}  // namespace

std::shared_ptr<const ops::InputStats> CalibratedInputs::find(const std::string& module) {
  if (!plain_) plain_ = calibrate_(model_, {});
  return look_up(*plain_, module);
}

std::shared_ptr<const ops::InputStats> CalibratedInputs::with_gram(
    const std::string& module, const std::vector<std::pair<std::string, std::int64_t>>& upcoming) {
  if (asked_.contains(module)) return look_up(grams_, module);
  grams_.clear();
  asked_ = {module};
  std::int64_t bytes = 0;
  for (const auto& [name, k] : upcoming) {
    bytes += 4 * k * k;
    if (bytes > kGramBytes) break;
    asked_.insert(name);
  }
  grams_ = calibrate_(model_, asked_);
  return look_up(grams_, module);
}

}  // namespace lowp::quant
