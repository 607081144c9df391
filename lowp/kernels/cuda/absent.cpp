// The backend's interface in a build without CUDA: no devices, and nothing that could be called without one.
#include "lowp/base/error.h"
#include "lowp/kernels/cuda/attention.h"
#include "lowp/kernels/cuda/attention_heads.h"
#include "lowp/kernels/cuda/cast.h"
#include "lowp/kernels/cuda/experts.h"
#include "lowp/kernels/cuda/experts_product.h"
#include "lowp/kernels/cuda/gemm_cublas.h"
#include "lowp/kernels/cuda/gemm_dense.h"
#include "lowp/kernels/cuda/gemm_packed_product.h"
#include "lowp/kernels/cuda/layers.h"
#include "lowp/kernels/cuda/profile.h"
#include "lowp/kernels/cuda/read.h"
#include "lowp/kernels/cuda/rope.h"
#include "lowp/kernels/cuda/row_rebase.h"
#include "lowp/kernels/cuda/sample.h"
#include "lowp/kernels/cuda/transfer.h"

namespace lowp::kernels::cuda {
namespace {
[[noreturn]] void absent() { fail(ErrorCode::usage, "{}", why_none()); }
}  // namespace

const std::vector<DeviceInfo>& devices() {
  static const std::vector<DeviceInfo> none;
  return none;
}
const std::string& why_none() {
  static const std::string why = "this build has no CUDA";
  return why;
}
std::vector<Architecture> architectures() { return {}; }
void use_device(int) { absent(); }

Memory::Memory(std::size_t) { absent(); }
Memory::~Memory() = default;
Memory::Memory(Memory&&) noexcept = default;
Memory& Memory::operator=(Memory&&) noexcept = default;
HostMemory::HostMemory(std::size_t) { absent(); }
HostMemory::~HostMemory() = default;
HostMemory::HostMemory(HostMemory&&) noexcept = default;
HostMemory& HostMemory::operator=(HostMemory&&) noexcept = default;
Memory uploaded(std::span<const std::span<const std::byte>>) { absent(); }
Memory copied(const Memory&) { absent(); }
std::size_t free_memory() { absent(); }
Stream::Stream() { absent(); }
Stream::~Stream() = default;
void Stream::synchronize() const {}
Event::Event() { absent(); }
Event::~Event() = default;
void Event::record(const Stream&) {}
double Event::seconds_since(const Event&) const { absent(); }
Graph::~Graph() = default;
void Graph::begin(const Stream&) { absent(); }
void Graph::end(const Stream&) { absent(); }
void Graph::launch(const Stream&) const { absent(); }
void copy(void*, const void*, std::size_t, StreamHandle) { absent(); }
void copy_rows(void*, std::size_t, const void*, std::size_t, std::size_t, std::size_t, StreamHandle) { absent(); }
void fill(void*, int, std::size_t, StreamHandle) { absent(); }
void launch_cooperative(const void*, unsigned, unsigned, void**, StreamHandle) { absent(); }
void check_launch(const char*) { absent(); }

void cast(const CastTask&, StreamHandle) { absent(); }
void amax(const void*, formats::Elem, std::int64_t, std::int64_t, MatrixAmax*, StreamHandle) { absent(); }
void rotated_amax(const void*, formats::Elem, std::int64_t, std::int64_t, std::int64_t, bool, MatrixAmax*,
                  StreamHandle) {
  absent();
}
bool amax_and_cast(const CastTask&, MatrixAmax*, StreamHandle) { absent(); }
void rope_cast(const HeadsTask&, StreamHandle) { absent(); }
void first_nonfinite(const void*, formats::Elem, std::int64_t, std::int64_t*, StreamHandle) { absent(); }
void dequantize(const DequantizeTask&, StreamHandle) { absent(); }
void to_layout(const std::uint8_t*, std::int64_t, const formats::ScaleGrid&, std::uint8_t*, std::int64_t,
               StreamHandle) {
  absent();
}
void from_layout(const std::uint8_t*, std::int64_t, const formats::ScaleGrid&, std::uint8_t*, StreamHandle) {
  absent();
}

void gather_rows(const GatherTask&, StreamHandle) { absent(); }
void add_norm(const AddNormTask&, StreamHandle) { absent(); }
void gate_mul(const GateTask&, StreamHandle) { absent(); }
bool casts_rows(const formats::BlockSpec&) { absent(); }
void cast_rows(const CastRowsTask&, StreamHandle) { absent(); }
void rebase_rows(const CastRowsTask&, StreamHandle) { absent(); }
void rotate_store(const RotateStoreTask&, StreamHandle) { absent(); }
void hadamard_heads(const HadamardTask&, StreamHandle) { absent(); }
std::int64_t argmax_workspace(std::int64_t, std::int64_t) { absent(); }
void argmax(const ArgmaxTask&, StreamHandle) { absent(); }
void attend_decode(const AttentionTask&, StreamHandle) { absent(); }
std::int64_t attend_decode_workspace(const AttentionTask&) { absent(); }
void attend_prefill(const AttentionTask&, StreamHandle) { absent(); }
void attend_heads(const HeadsAttentionTask&, StreamHandle) { absent(); }
std::int64_t attend_heads_workspace(const HeadsAttentionTask&) { absent(); }

void read_all(const void*, std::size_t, std::uint32_t*, StreamHandle) { absent(); }
void dense_product(const DenseProduct&, StreamHandle) { absent(); }
void grouped_product(const GroupedProduct&, StreamHandle) { absent(); }
const char* dense_variant_name(const DenseProduct&) { absent(); }
bool fuses_input(const PackedProduct&) { absent(); }
bool fuses_gate(const PackedProduct&) { absent(); }
void packed_product(const PackedProduct&, StreamHandle) { absent(); }
bool chains(const PackedProduct&, const PackedProduct&) { absent(); }
int mailed_values(const PackedProduct&) { absent(); }
void packed_products(std::span<const PackedProduct>, const ProductMail&, StreamHandle) { absent(); }
std::string packed_kernel_name(const PackedProduct&) { absent(); }
void sample(const SampleTask&, StreamHandle) { absent(); }
void score(const ScoreTask&, StreamHandle) { absent(); }
void combine(const CombineTask&, StreamHandle) { absent(); }
struct Profile::Record {};
Profile::Profile() { absent(); }
Profile::~Profile() = default;
std::vector<TimedWork> Profile::take() { absent(); }
Profile* Profile::current() { return nullptr; }
void Profile::begin(Work, StreamHandle) { absent(); }
void Profile::end(StreamHandle) { absent(); }
void gather_places(const GatherPlaces&, StreamHandle) { absent(); }
void share_amax(const RoutedRows&, MatrixAmax*, StreamHandle) { absent(); }
std::int64_t route_workspace(const RoutedRows&) { absent(); }
void route(const RouteTask&, StreamHandle) { absent(); }
void norm_and_score(const RouterTask&, StreamHandle) { absent(); }
bool experts_are_few(const ExpertsProduct&, const ExpertsProduct&) { absent(); }
void experts_of_few(const ExpertsProduct&, const ExpertChoice&, StreamHandle) { absent(); }
void combine_experts_of_few(const ExpertsProduct&, const ExpertChoice&, StreamHandle) { absent(); }
int experts_block_rows(std::int64_t, std::int64_t) { absent(); }
void experts_of_many(const ExpertsProduct&, StreamHandle) { absent(); }
const std::string& why_no_cublas() { return why_none(); }
struct CublasProduct::Plan {};
CublasProduct::CublasProduct(const What&) { absent(); }
CublasProduct::~CublasProduct() = default;
CublasProduct::CublasProduct(CublasProduct&&) noexcept = default;
void CublasProduct::run(const void*, const void*, const float*, const float*, void*, void*, StreamHandle) const {
  absent();
}

}  // namespace lowp::kernels::cuda
