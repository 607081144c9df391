// TLS of connections, a server's and a client's. OpenSSL is named in tls.cpp; tls_absent.cpp stands for it in builds
// that have none.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace lowp::server {

/// One connection's records, read from and written to its TCP stream, whose time-outs hold for them too. One read and
/// one write may be under way at a time.
class TlsSession {
 public:
  using Done = std::function<void(boost::system::error_code error, std::size_t bytes)>;
  virtual ~TlsSession() = default;
  virtual void handshake(Done done) = 0;
  virtual void read_some(boost::asio::mutable_buffer into, Done done) = 0;
  virtual void write_some(boost::asio::const_buffer from, Done done) = 0;
  /// Tells the peer that nothing follows, and waits for the same from it.
  virtual void shut_down(Done done) = 0;
};

/// What all connections share: a server's certificates and key, or whom a client believes. TLS 1.2 and newer.
class TlsContext {
 public:
  /// A server's, from PEM files: the certificate with those that vouch for it behind it, and its key, not encrypted;
  /// may be one file. Throws Error naming the file: io if it cannot be read, bad_input if it does not hold that or the
  /// key is of another certificate; unsupported in builds without TLS.
  TlsContext(const std::string& certificates, const std::string& key);
  /// A client's: a server must have a certificate for its name that one of the system's authorities, or of those in the
  /// file SSL_CERT_FILE, vouches for; or `any_certificate`. Throws Error(unsupported) in builds without TLS.
  explicit TlsContext(bool any_certificate);
  ~TlsContext();
  /// The stream must outlive the session. `host`, a name or an address: whom a client means to talk to.
  std::unique_ptr<TlsSession> session(boost::beast::tcp_stream& stream, const std::string& host) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lowp::server
