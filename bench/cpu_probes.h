// The limits of this CPU, measured: memory streams and the peak rates of its multiply instructions, all threads.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace lowp::bench {

/// One peak: a loop of one instruction on independent registers.
struct InstructionPeak {
  std::string_view name;     // "vnni_avx512"
  std::string_view meaning;  // the instruction
  double (*rate)();          // operations/s over all threads, measured in about 10 ms
};

/// The peaks of the instructions that this CPU has.
std::vector<InstructionPeak> instruction_peaks();

/// Two large buffers, touched once, for the memory streams.
class MemoryProbe {
 public:
  MemoryProbe();
  /// bytes/s of reading one buffer.
  double read() const;
  /// bytes/s, read and written together, of copying one buffer to the other: the faster of plain and streaming stores.
  double copy();

 private:
  std::vector<std::byte> from_, to_;
};

}  // namespace lowp::bench
