#include "lowp/kernels/cuda/kv_pages.h"

#include "lowp/base/error.h"

namespace lowp::kernels::cuda {

using formats::Elem;

void check_layout(const KvPageLayout& layout) {
  LOWP_CHECK(layout.type == Elem::bf16 || layout.type == Elem::e4m3 || layout.type == Elem::int8,
             "keys and values stored as {}", formats::name(layout.type));
  LOWP_CHECK(layout.head_dim == 64 || layout.head_dim == 128 || layout.head_dim == 256, "heads of {}", layout.head_dim);
}

}  // namespace lowp::kernels::cuda
