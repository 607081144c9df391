// What commands print: tables, sizes, progress.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "lowp/base/json.h"

namespace lowp::cli {

/// Rows of text in aligned columns; columns whose cells are numbers are right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const;
  std::string markdown() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// "12.3 MB" (powers of ten).
std::string human_bytes(std::uint64_t bytes);

/// dB with two decimals; "exact" for an infinite ratio.
std::string decibel(double value);

/// A number for JSON: null where JSON has no spelling (infinities).
Json json_number(double value);

/// A value as one line; bytes that are not UTF-8 (of a path, say) become U+FFFD.
std::string json_line(const Json& value);

/// A bar on standard error, on a terminal only, from the first second on.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();
  void update(std::uint64_t done, std::uint64_t total);

 private:
  std::string what_;
  bool terminal_, drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

/// Seconds since construction.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace lowp::cli
