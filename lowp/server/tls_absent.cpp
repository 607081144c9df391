#include "lowp/base/error.h"
#include "lowp/server/tls.h"

namespace lowp::server {

struct TlsContext::Impl {};

TlsContext::TlsContext(const std::string&, const std::string&) {
  fail(ErrorCode::unsupported, "this build has no TLS (LOWP_TLS)");
}

TlsContext::~TlsContext() = default;

std::unique_ptr<TlsSession> TlsContext::session(boost::beast::tcp_stream&) const { return nullptr; }

}  // namespace lowp::server
