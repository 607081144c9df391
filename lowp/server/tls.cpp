#include "lowp/server/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

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
  Session(boost::beast::tcp_stream& stream, asio::ssl::context& context) : stream_(stream, context) {}

  void handshake(Done done) override {
    stream_.async_handshake(asio::ssl::stream_base::server,
                            [done = std::move(done)](error_code error) { done(error, 0); });
  }
  void read_some(asio::mutable_buffer into, Done done) override { stream_.async_read_some(into, std::move(done)); }
  void write_some(asio::const_buffer from, Done done) override { stream_.async_write_some(from, std::move(done)); }
  void shut_down(Done done) override {
    stream_.async_shutdown([done = std::move(done)](error_code error) { done(error, 0); });
  }

 private:
  asio::ssl::stream<boost::beast::tcp_stream&> stream_;
};

}  // namespace

struct TlsContext::Impl {
  asio::ssl::context context{asio::ssl::context::tls_server};
};

TlsContext::TlsContext(const std::string& certificates, const std::string& key) : impl_(std::make_unique<Impl>()) {
  asio::ssl::context& context = impl_->context;
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
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

TlsContext::~TlsContext() = default;

std::unique_ptr<TlsSession> TlsContext::session(boost::beast::tcp_stream& stream) const {
  return std::make_unique<Session>(stream, impl_->context);
}

}  // namespace lowp::server
