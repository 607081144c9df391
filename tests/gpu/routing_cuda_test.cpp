// Routing on the GPU against the CPU's, to the bit, and the lists that follow from it.
#include <algorithm>
#include <set>

#include "lowp/kernels/cuda/routing.h"
#include "lowp/models/routing.h"
#include "lowp/ops/cuda_testing.h"

namespace lowp {
namespace {

namespace cuda = kernels::cuda;

class CudaRouting : public ops::CudaTest {
 protected:
  struct Found {
    cuda::RoutedRows on_device;
    std::vector<std::int32_t> place_row, visits, block_expert, block_first, block_size, expert_first, expert_size;
    std::vector<float> weights;
    std::int32_t block_count;
  };

  Found route(const ops::Bf16Values& scores, const std::vector<std::int32_t>& positions, bool normalize,
              cuda::RoutedRows to) {
    to.place_row = room<std::int32_t>(to.places(), 0x11);
    to.visits = room<std::int32_t>(to.rows * to.top, 0x11);
    to.weights = room<float>(to.rows * to.top);
    to.block_expert = room<std::int32_t>(to.blocks(), 0x11);
    to.block_first = room<std::int32_t>(to.blocks(), 0x11);
    to.block_size = room<std::int32_t>(to.blocks(), 0x11);
    to.block_count = room<std::int32_t>(1, 0x11);
    to.expert_first = room<std::int32_t>(to.experts, 0x11);
    to.expert_size = room<std::int32_t>(to.experts, 0x11);
    cuda::route({.choice = {.scores = upload(scores), .positions = upload(positions), .normalize = normalize},
                 .to = to,
                 .workspace = room<std::byte>(cuda::route_workspace(to))},
                handle());
    return {to,
            download(to.place_row, to.places()),
            download(to.visits, to.rows * to.top),
            download(to.block_expert, to.blocks()),
            download(to.block_first, to.blocks()),
            download(to.block_size, to.blocks()),
            download(to.expert_first, to.experts),
            download(to.expert_size, to.experts),
            download(to.weights, to.rows * to.top),
            download(to.block_count, 1)[0]};
  }
};

TEST_F(CudaRouting, ChoosesAsTheCpuAndListsEveryVisitOnce) {
  struct Case {
    std::int64_t rows, experts, top;
    int align, block_rows;
    int kind;  // 0: random, 1: ties, 2: all rows alike, 3: scores far apart
  };
  std::vector<Case> cases;
  for (const int kind : {0, 1, 2, 3})
    for (const std::int64_t rows : {1, 7, 32, 33, 500, 1500})
      cases.insert(cases.end(), {{rows, 128, 8, 1, 8, kind},
                                 {rows, 8, 2, 128, 128, kind},
                                 {rows, 300, 6, 1, 16, kind},
                                 {rows, 5, 5, 1, 64, kind}});
  for (const Case& c : cases) {
    std::normal_distribution<float> normal(0, c.kind == 3 ? 60.0f : 1.0f);
    ops::Bf16Values scores;
    for (std::int64_t r = 0; r < c.rows; ++r)
      for (std::int64_t e = 0; e < c.experts; ++e)
        scores.push_back(ops::to_bf16(c.kind == 1   ? static_cast<float>(rng() % 4)
                                      : c.kind == 2 ? static_cast<float>(e % 3)
                                                    : normal(rng)));
    std::vector<std::int32_t> positions(static_cast<std::size_t>(c.rows));
    for (std::size_t r = 0; r < positions.size(); ++r) positions[r] = r % 7 == 3 ? -1 : static_cast<std::int32_t>(r);
    const bool normalize = c.rows % 2 == 1;
    const Found found =
        route(scores, positions, normalize,
              {.rows = c.rows, .experts = c.experts, .top = c.top, .align = c.align, .block_rows = c.block_rows});
    models::Config config;
    config.num_experts = c.experts;
    config.experts_per_token = c.top;
    config.norm_topk_prob = normalize;
    std::vector<float> values;
    for (const std::uint16_t s : scores) values.push_back(ops::from_bf16(s));
    std::vector<models::Choice> choices;
    models::route(config, formats::Elem::bf16, values, choices);

    const std::string what = fmt::format("{} rows, {} of {}, kind {}", c.rows, c.top, c.experts, c.kind);
    std::vector<std::int64_t> size(static_cast<std::size_t>(c.experts));
    std::set<std::int32_t> places;
    for (std::int64_t r = 0; r < c.rows; ++r) {
      const auto at = static_cast<std::size_t>(r * c.top);
      const auto own = std::span(choices).subspan(at, static_cast<std::size_t>(c.top));
      std::sort(own.begin(), own.end(), [](const auto& a, const auto& b) { return a.expert < b.expert; });
      for (std::size_t i = 0; i < own.size(); ++i) {
        const std::int32_t place = found.visits[at + i];
        if (positions[static_cast<std::size_t>(r)] < 0) {
          ASSERT_EQ(place, -1) << what;
          continue;
        }
        const auto expert = static_cast<std::size_t>(own[i].expert);
        ASSERT_EQ(found.weights[at + i], own[i].weight) << what << ", row " << r;
        ASSERT_EQ(place, found.expert_first[expert] + size[expert]++) << what << ", row " << r;
        ASSERT_EQ(found.place_row[static_cast<std::size_t>(place)], r) << what;
        ASSERT_TRUE(places.insert(place).second) << what;
      }
    }
    std::int64_t next = 0, block = 0;
    for (std::size_t e = 0; e < size.size(); ++e) {
      ASSERT_EQ(found.expert_first[e], next) << what;
      ASSERT_EQ(found.expert_size[e], size[e]) << what;
      for (std::int64_t first = 0; first < size[e]; first += c.block_rows, ++block) {
        const auto b = static_cast<std::size_t>(block);
        ASSERT_EQ(found.block_expert[b], static_cast<std::int32_t>(e)) << what;
        ASSERT_EQ(found.block_first[b], next + first) << what;
        ASSERT_EQ(found.block_size[b], std::min<std::int64_t>(c.block_rows, size[e] - first)) << what;
      }
      next += round_up<std::int64_t>(size[e], c.align);
    }
    ASSERT_EQ(found.block_count, block) << what;
    for (auto b = static_cast<std::size_t>(block); b < found.block_expert.size(); ++b)
      ASSERT_EQ(found.block_expert[b], -1) << what;
    for (std::size_t p = 0; p < found.place_row.size(); ++p)
      if (!places.contains(static_cast<std::int32_t>(p))) ASSERT_EQ(found.place_row[p], -1) << what;
    memories.clear();
  }
}

}  // namespace
}  // namespace lowp
