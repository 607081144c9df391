#include "lowp/base/error.h"
#include "lowp/server/tls.h"

namespace lowp::server {

struct TlsContext::Impl {};

namespace {

[[noreturn]] void refuse() { fail(ErrorCode::unsupported, "this build has no TLS (LOWP_TLS)"); }

}  // namespace

TlsContext::TlsContext(const std::string&, const std::string&) { refuse(); }

TlsContext::TlsContext(bool) { refuse(); }

TlsContext::~TlsContext() = default;

std::unique_ptr<TlsSession> TlsContext::session(boost::beast::tcp_stream&, const std::string&) const { return nullptr; }

}  // namespace lowp::server
