// parse_packed_fields refuses any JSON with Error, or says of a weight what kernels can read: sizes that do not
// overflow, and codes that lie inside their tables.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/models/packed_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  lowp::kernels::cpu::PackedMatrix m;
  try {
    m = lowp::models::parse_packed_fields(lowp::parse_json(text, "fuzz"), "fuzz");
  } catch (const lowp::Error&) {
    return 0;
  }
  const auto require = [](bool condition) {
    if (!condition) std::abort();
  };
  require(m.n > 0 && m.k > 0 && m.panel_bytes() > 0 && m.panels() > 0);
  require(m.data_bytes() > 0 && m.data_bytes() / m.panels() >= m.panel_bytes());
  require(m.block >= 16 && m.block <= lowp::kernels::cpu::kMaxSpan);
  require(m.bits >= 1 && (m.bits <= 8 || m.bits == 16));
  require(!m.lookup || std::size_t{1} << m.bits <= m.bytes.size());
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {R"({"n": 64, "k": 256, "arithmetic": "int8", "bits": 4, "block": 32, "scale": "f32", "offset": "zero_point",)"
          R"( "bias": 8.0, "lookup": false})",
          R"({"n": 1, "k": 1, "arithmetic": "bf16", "bits": 16, "block": 512, "scale": "none", "offset": "none",)"
          R"( "bias": 0, "lookup": false})",
          R"({"n": 45, "k": 96, "arithmetic": "int8", "bits": 4, "block": 16, "scale": "e4m3", "offset": "none",)"
          R"( "bias": 12, "lookup": true})"};
}
