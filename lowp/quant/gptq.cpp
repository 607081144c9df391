#include "lowp/quant/gptq.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <numeric>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/kernels/group.h"
#include "lowp/quant/mse_search.h"

namespace lowp::quant {
namespace {

using formats::GroupParams;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr float kDamping = 0.01f;
constexpr std::int64_t kBlock = 128;  // columns whose errors reach the columns after them together
constexpr std::int64_t kRows = 16;    // rows that a thread takes at a time

std::vector<std::int64_t> descending(const std::vector<float>& importance) {
  std::vector<std::int64_t> order(importance.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return importance[static_cast<std::size_t>(a)] > importance[static_cast<std::size_t>(b)];
  });
  return order;
}

// The upper U with U^T U = H^-1, H the damped Gram matrix in this order. With J the exchange of first and last, and
// J H J = L L^T, U is J L^-1 J.
Matrix inverse_factor(const ops::InputStats& inputs, const std::vector<std::int64_t>& order) {
  const auto k = static_cast<std::int64_t>(order.size());
  Matrix h(k, k);
  for (std::int64_t i = 0; i < k; ++i)
    for (std::int64_t j = 0; j < k; ++j)
      h(i, j) = inputs.gram[static_cast<std::size_t>(order[static_cast<std::size_t>(k - 1 - i)] * k +
                                                     order[static_cast<std::size_t>(k - 1 - j)])];
  float mean = h.trace() / static_cast<float>(k);
  if (!(mean > 0)) mean = 1;  // no input was ever other than zero: plain rounding
  for (float damping = kDamping;; damping *= 10) {
    Matrix damped = h;
    damped.diagonal().array() += damping * mean;
    const Eigen::LLT<Matrix> llt(std::move(damped));
    if (llt.info() != Eigen::Success) {
      LOWP_CHECK(damping < 1e6f, "the Gram matrix of inputs has values that are not finite");
      continue;
    }
    const Matrix inverse = llt.matrixL().solve(Matrix::Identity(k, k));
    return inverse.reverse();
  }
}

// Rounds rows of w (columns in `order`, a working copy) in place; codes of row r go to `out`.
class Rounding {
 public:
  Rounding(QuantizedMatrix& out, const std::vector<std::int64_t>& order, const Matrix& factor)
      : out_(out),
        order_(order),
        factor_(factor),
        width_(out.format.group_cols ? out.format.group_cols : out.k),
        errors_(kRows, kBlock) {}

  // w [rows, k]; params[r] are those of row first + r.
  void run(Matrix& w, std::int64_t first, const std::vector<std::vector<GroupParams>>& params) {
    for (std::int64_t at = 0; at < out_.k; at += kBlock) {
      const std::int64_t count = std::min(kBlock, out_.k - at), rest = out_.k - at - count;
      for (std::int64_t r = 0; r < w.rows(); ++r)
        round_block(w, r, first + r, params[static_cast<std::size_t>(r)], at, count);
      w.rightCols(rest).noalias() -=
          errors_.topLeftCorner(w.rows(), count) * factor_.block(at, at + count, count, rest);
    }
  }

 private:
  void round_block(Matrix& w, std::int64_t r, std::int64_t row, const std::vector<GroupParams>& params, std::int64_t at,
                   std::int64_t count) {
    for (std::int64_t j = at; j < at + count; ++j) {
      const std::int64_t column = order_[static_cast<std::size_t>(j)];
      const GroupParams& p = params[static_cast<std::size_t>(column / width_)];
      const std::uint32_t code = formats::encode_element(out_.format, out_.input, p, w(r, j));
      kernels::store_code(out_, row * out_.k + column, code);
      const float value = formats::decode_element(out_.format, formats::Elem::f32, p, out_.tensor_scale, code);
      const float e = (w(r, j) - value) / factor_(j, j);
      errors_(r, j - at) = e;
      for (std::int64_t i = j + 1; i < at + count; ++i) w(r, i) -= e * factor_(j, i);
    }
  }

  QuantizedMatrix& out_;
  const std::vector<std::int64_t>& order_;
  const Matrix& factor_;
  std::int64_t width_;
  Matrix errors_;
};

}  // namespace

QuantizedMatrix gptq(const TensorView& x, const formats::BlockFormat& format, const ops::InputStats& inputs,
                     const ops::CastOptions& options) {
  QuantizedMatrix out = begin_search(x, format, options);
  const std::vector<float> importance = inputs.mean_square();
  LOWP_CHECK(static_cast<std::int64_t>(importance.size()) == out.k, "{}: inputs of {} columns", options.name,
             importance.size());
  const std::vector<std::int64_t> order = descending(importance);
  const Matrix factor = inverse_factor(inputs, order);
  parallel_for(ceil_div(out.m, kRows), 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(out.k));
    Rounding rounding(out, order, factor);
    for (std::int64_t first = begin * kRows; first < std::min(end * kRows, out.m); first += kRows) {
      Matrix w(std::min(kRows, out.m - first), out.k);
      std::vector<std::vector<GroupParams>> params;
      for (std::int64_t r = 0; r < w.rows(); ++r) {
        load_f32(x, (first + r) * out.k, out.k, row.data());
        params.push_back(search_row(format, out.input, options.scaling, out.tensor_scale, row, importance));
        const auto groups = static_cast<std::int64_t>(params.back().size());
        for (std::int64_t g = 0; g < groups; ++g)
          kernels::store_params(out, (first + r) * groups + g, params.back()[static_cast<std::size_t>(g)]);
        for (std::int64_t j = 0; j < out.k; ++j)
          w(r, j) = row[static_cast<std::size_t>(order[static_cast<std::size_t>(j)])];
      }
      rounding.run(w, first, params);
    }
  });
  if (options.rows_read) options.rows_read(out.m);
  return out;
}

}  // namespace lowp::quant
