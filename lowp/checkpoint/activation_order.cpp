#include "lowp/checkpoint/activation_order.h"

#include <cstring>
#include <vector>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/base/threads.h"

namespace lowp::checkpoint {
namespace {

// permute(from, to, order): one row of bytes.
template <typename Permute>
Tensor for_rows(const Tensor& codes, const Tensor& column_order, const Permute& permute) {
  const std::int64_t m = codes.shape()[0], k = codes.shape()[1];
  LOWP_CHECK(column_order.shape() == Shape{k} && info(codes.dtype()).bits == 8, "an order of {} for codes {}",
             to_string(column_order.shape()), to_string(codes.shape()));
  Tensor result(codes.dtype(), codes.shape());
  const auto* order = column_order.as<std::int32_t>();
  parallel_for(m, ceil_div<std::int64_t>(1 << 16, std::max<std::int64_t>(k, 1)), [&](auto begin, auto end) {
    for (std::int64_t r = begin; r < end; ++r)
      permute(codes.as<std::uint8_t>() + r * k, result.as<std::uint8_t>() + r * k, order, k);
  });
  return result;
}

}  // namespace

Tensor column_order(const TensorView& g_idx, int group, const std::string& where) {
  const std::int64_t k = g_idx.shape[0], groups = k / group;
  std::vector<std::int32_t> index(static_cast<std::size_t>(k));
  std::memcpy(index.data(), g_idx.bytes.data(), g_idx.bytes.size());
  bool trivial = true, unset = true;
  for (std::int64_t j = 0; j < k; ++j) {
    unset = unset && index[j] == -1;
    trivial = trivial && index[j] == j / group;
  }
  if (unset || trivial) return {};
  std::vector<std::int32_t> next(static_cast<std::size_t>(groups));  // columns of each group so far
  Tensor order(DType::i32, {k});
  for (std::int64_t j = 0; j < k; ++j) {
    const std::int32_t g = index[j];
    if (g < 0 || g >= groups)
      fail(ErrorCode::bad_input, "{}: column {} is in group {}, there are {} of {} columns", where, j, g, groups,
           group);
    if (next[g] == group)
      fail(ErrorCode::bad_input, "{}: group {} has more than the declared {} columns", where, g, group);
    order.as<std::int32_t>()[static_cast<std::int64_t>(g) * group + next[g]++] = static_cast<std::int32_t>(j);
  }
  return order;
}

void check_order(const Tensor& column_order, int group, const std::string& where) {
  const std::int64_t k = column_order.shape()[0];
  const auto* order = column_order.as<std::int32_t>();
  std::vector<bool> seen(static_cast<std::size_t>(k));
  for (std::int64_t j = 0; j < k; ++j) {
    if (order[j] < 0 || order[j] >= k || seen[order[j]])
      fail(ErrorCode::bad_input, "{}: value {} at {} is out of range or there twice", where, order[j], j);
    if (j % group != 0 && order[j] < order[j - 1])
      fail(ErrorCode::bad_input, "{}: columns {} and {} of one group are not ascending", where, order[j - 1], order[j]);
    seen[order[j]] = true;
  }
}

Tensor group_index(const Tensor& column_order, std::int64_t k, int group) {
  Tensor index(DType::i32, {k});
  for (std::int64_t j = 0; j < k; ++j)
    index.as<std::int32_t>()[column_order.empty() ? j : column_order.as<std::int32_t>()[j]] =
        static_cast<std::int32_t>(j / group);
  return index;
}

Tensor into_order(const Tensor& codes, const Tensor& column_order) {
  return for_rows(codes, column_order, [](const auto* from, auto* to, const std::int32_t* order, std::int64_t k) {
    for (std::int64_t j = 0; j < k; ++j) to[j] = from[order[j]];
  });
}

Tensor out_of_order(const Tensor& codes, const Tensor& column_order) {
  return for_rows(codes, column_order, [](const auto* from, auto* to, const std::int32_t* order, std::int64_t k) {
    for (std::int64_t j = 0; j < k; ++j) to[order[j]] = from[j];
  });
}

}  // namespace lowp::checkpoint
