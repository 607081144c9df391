#include "lowp/kernels/cuda/gemm_cublas.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include "lowp/base/error.h"

namespace lowp::kernels::cuda {
namespace {

using formats::Elem;

// The functions in use, by their own names and types.
struct Library {
  std::string why;
  cublasLtHandle_t handle = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
};

const Library& library() {
  static const Library loaded = [] {
    Library l;
    const std::string name = fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR);
    void* file = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!file) {
      l.why = fmt::format("cuBLASLt: {}", ::dlerror());
      return l;
    }
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(::dlsym(file, name));
      if (!function && l.why.empty()) l.why = fmt::format("cuBLASLt has no {}", name);
    };
    find(l.create, "cublasLtCreate");
    find(l.matmul, "cublasLtMatmul");
    find(l.heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(l.desc_create, "cublasLtMatmulDescCreate");
    find(l.desc_destroy, "cublasLtMatmulDescDestroy");
    find(l.desc_set, "cublasLtMatmulDescSetAttribute");
    find(l.layout_create, "cublasLtMatrixLayoutCreate");
    find(l.layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(l.preference_create, "cublasLtMatmulPreferenceCreate");
    find(l.preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(l.preference_set, "cublasLtMatmulPreferenceSetAttribute");
    if (l.why.empty() && l.create(&l.handle) != CUBLAS_STATUS_SUCCESS) l.why = "cuBLASLt: cannot create a handle";
    return l;
  }();
  return loaded;
}

cudaDataType_t data_type(Elem type) {
  return type == Elem::bf16 ? CUDA_R_16BF : type == Elem::e4m3 ? CUDA_R_8F_E4M3 : CUDA_R_8I;
}

}  // namespace

const std::string& why_no_cublas() { return library().why; }

struct CublasProduct::Plan {
  What what;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};

  ~Plan() {
    if (desc) library().desc_destroy(desc);
    for (const cublasLtMatrixLayout_t layout : {a, b, y})
      if (layout) library().layout_destroy(layout);
  }
};

// cuBLASLt's matrices are column-major: y [m, n] row-major is y^T [n, m], and the first operand is b.
CublasProduct::CublasProduct(const What& what) : plan_(std::make_unique<Plan>()) {
  if (!why_no_cublas().empty()) fail(ErrorCode::unsupported, "{}", why_no_cublas());
  const Library& l = library();
  Plan& p = *plan_;
  p.what = what;
  const std::string name =
      fmt::format("product [{}, {}] x [{}, {}] of {}", what.m, what.k, what.n, what.k, formats::name(what.type));
  const auto check = [&](cublasStatus_t status, const char* step) {
    if (status != CUBLAS_STATUS_SUCCESS)
      fail(ErrorCode::unsupported, "cuBLASLt: {}: {} failed with status {}", name, step, static_cast<int>(status));
  };
  const bool integer = what.type == Elem::int8;
  check(l.desc_create(&p.desc, integer ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F, integer ? CUDA_R_32I : CUDA_R_32F),
        "creating a description");
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value, const char* step) {
    check(l.desc_set(p.desc, attribute, &value, sizeof value), step);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T, "transposing");
  if (what.type == Elem::e4m3) {
    set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<std::int8_t>(what.fast_sums), "choosing sums");
    const std::int32_t mode =
        what.row_scales ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F : CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode, "choosing scales");
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode, "choosing scales");
    // Scales of rows are refused without an address, which is only known when the product runs.
    const void* const some_address = reinterpret_cast<const void*>(std::uintptr_t{256});
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, some_address, "choosing scales");
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, some_address, "choosing scales");
  }
  const auto m = static_cast<std::uint64_t>(what.m), n = static_cast<std::uint64_t>(what.n),
             k = static_cast<std::uint64_t>(what.k);
  check(l.layout_create(&p.b, data_type(what.type), k, n, what.k), "describing a matrix");
  check(l.layout_create(&p.a, data_type(what.type), k, m, what.k), "describing a matrix");
  check(l.layout_create(&p.y, integer ? CUDA_R_32I : CUDA_R_16BF, n, m, what.n), "describing a matrix");
  cublasLtMatmulPreference_t preference = nullptr;
  check(l.preference_create(&preference), "creating a preference");
  const std::uint64_t most = workspace_bytes();
  l.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most);
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status = l.heuristic(l.handle, p.desc, p.b, p.a, p.y, p.y, preference, 1, &found, &count);
  l.preference_destroy(preference);
  check(status, "choosing a kernel");
  if (count == 0) fail(ErrorCode::unsupported, "cuBLASLt has no {}", name);
  p.algorithm = found.algo;
}

CublasProduct::~CublasProduct() = default;
CublasProduct::CublasProduct(CublasProduct&&) noexcept = default;

void CublasProduct::run(const void* a, const void* b, const float* a_scale, const float* b_scale, void* y,
                        void* workspace, StreamHandle stream) const {
  const Library& l = library();
  const Plan& p = *plan_;
  if (p.what.type == Elem::e4m3) {
    l.desc_set(p.desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &b_scale, sizeof b_scale);
    l.desc_set(p.desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &a_scale, sizeof a_scale);
  }
  const float one = 1, zero = 0;
  const std::int32_t one_integer = 1, zero_integer = 0;
  const bool integer = p.what.type == Elem::int8;
  const void *alpha = integer ? static_cast<const void*>(&one_integer) : &one,
             *beta = integer ? static_cast<const void*>(&zero_integer) : &zero;
  const cublasStatus_t status = l.matmul(l.handle, p.desc, alpha, b, p.b, a, p.a, beta, y, p.y, y, p.y, &p.algorithm,
                                         workspace, workspace_bytes(), stream);
  LOWP_CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt: a planned product failed with status {}",
             static_cast<int>(status));
}

}  // namespace lowp::kernels::cuda
