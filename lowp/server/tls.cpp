#include "lowp/server/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ssl.hpp>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/base/file.h"

namespace lowp::server {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr std::size_t kMostPemBytes = std::size_t{1} << 20;

class Session : public TlsSession {
 public:
  using Role = asio::ssl::stream_base::handshake_type;

  Session(boost::beast::tcp_stream& stream, asio::ssl::context& context, Role role, const std::string& host)
      : stream_(stream, context), role_(role) {
    if (role == Role::server) return;
    error_code is_name;
    asio::ip::make_address(host, is_name);
    if (is_name) SSL_set_tlsext_host_name(stream_.native_handle(), host.c_str());
    stream_.set_verify_callback(asio::ssl::host_name_verification(host));
  }

  void handshake(Done done) override {
    stream_.async_handshake(role_, [done = std::move(done)](error_code error) { done(error, 0); });
  }
  void read_some(asio::mutable_buffer into, Done done) override { stream_.async_read_some(into, std::move(done)); }
  void write_some(asio::const_buffer from, Done done) override { stream_.async_write_some(from, std::move(done)); }
  void shut_down(Done done) override {
    stream_.async_shutdown([done = std::move(done)](error_code error) { done(error, 0); });
  }

 private:
  asio::ssl::stream<boost::beast::tcp_stream&> stream_;
  const Role role_;
};

}  // namespace

struct TlsContext::Impl {
  explicit Impl(Session::Role role) : role(role) {
    SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  }

  const Session::Role role;
  asio::ssl::context context{role == Session::Role::server ? asio::ssl::context::tls_server
                                                           : asio::ssl::context::tls_client};
};

TlsContext::TlsContext(const std::string& certificates, const std::string& key)
    : impl_(std::make_unique<Impl>(Session::Role::server)) {
  asio::ssl::context& context = impl_->context;
  SSL_CTX_set_options(context.native_handle(), SSL_OP_NO_RENEGOTIATION);
  error_code error;
  context.use_certificate_chain(asio::buffer(read_text(certificates, kMostPemBytes)), error);
  if (error) fail(ErrorCode::bad_input, "{}: not certificates in PEM: {}", certificates, error.message());

  const std::string text = read_text(key, kMostPemBytes);
  if (text.find("ENCRYPTED") != std::string::npos)  // OpenSSL would ask the terminal for its password
    fail(ErrorCode::bad_input, "{}: the key is encrypted; `openssl pkey -in FILE -out PLAIN` decrypts it", key);
  context.use_private_key(asio::buffer(text), asio::ssl::context::pem, error);
  const int library = error ? ERR_GET_LIB(static_cast<unsigned long>(error.value())) : 0;
  if (error && library != ERR_LIB_X509 && library != ERR_LIB_SSL)
    fail(ErrorCode::bad_input, "{}: no private key in PEM: {}", key, error.message());
  if (error || SSL_CTX_check_private_key(context.native_handle()) != 1)
    fail(ErrorCode::bad_input, "{}: the key is not that of the certificate in {}", key, certificates);
}

TlsContext::TlsContext(bool any_certificate) : impl_(std::make_unique<Impl>(Session::Role::client)) {
  impl_->context.set_verify_mode(any_certificate ? asio::ssl::verify_none : asio::ssl::verify_peer);
  impl_->context.set_default_verify_paths();
}

TlsContext::~TlsContext() = default;

std::unique_ptr<TlsSession> TlsContext::session(boost::beast::tcp_stream& stream, const std::string& host) const {
  return std::make_unique<Session>(stream, impl_->context, impl_->role, host);
}

}  // namespace lowp::server
