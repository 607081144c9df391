// The bytes of one connection, as they are on the wire or through TLS, as Boost.Beast reads and writes them.
#pragma once

#include <boost/asio/async_result.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <memory>
#include <string>
#include <utility>

#include "lowp/server/tls.h"

namespace lowp::server {

/// An AsyncStream of Beast's. One class for both kinds, so that what is built on it is compiled once; of a plain
/// connection every call goes straight to the TCP stream.
class WireStream {
 public:
  using executor_type = boost::beast::tcp_stream::executor_type;
  using error_code = boost::system::error_code;

  /// `tls` null: a plain connection. `host`: whom a client means to talk to.
  WireStream(boost::asio::ip::tcp::socket socket, const TlsContext* tls, const std::string& host = {})
      : tcp_(std::move(socket)) {
    if (tls) tls_ = tls->session(tcp_, host);
  }

  executor_type get_executor() noexcept { return tcp_.get_executor(); }
  /// Time-outs, cancelling and closing are its.
  boost::beast::tcp_stream& tcp() { return tcp_; }
  /// Null for a plain connection.
  TlsSession* tls() { return tls_.get(); }

  template <typename Buffers, typename Handler>
  BOOST_BEAST_ASYNC_RESULT2(Handler)
  async_read_some(const Buffers& buffers, Handler&& handler) {
    return boost::asio::async_initiate<Handler, void(error_code, std::size_t)>(
        [this](auto&& call, const Buffers& into) {
          if (tls_)
            tls_->read_some(*boost::asio::buffer_sequence_begin(into), erase(std::forward<decltype(call)>(call)));
          else
            tcp_.async_read_some(into, std::forward<decltype(call)>(call));
        },
        handler, buffers);
  }

  template <typename Buffers, typename Handler>
  BOOST_BEAST_ASYNC_RESULT2(Handler)
  async_write_some(const Buffers& buffers, Handler&& handler) {
    return boost::asio::async_initiate<Handler, void(error_code, std::size_t)>(
        [this](auto&& call, const Buffers& from) {
          if (tls_)
            tls_->write_some(*boost::asio::buffer_sequence_begin(from), erase(std::forward<decltype(call)>(call)));
          else
            tcp_.async_write_some(from, std::forward<decltype(call)>(call));
        },
        handler, buffers);
  }

 private:
  // Beast's handlers can be moved only, std::function's must be copied.
  template <typename Handler>
  static TlsSession::Done erase(Handler&& handler) {
    auto kept = std::make_shared<std::decay_t<Handler>>(std::forward<Handler>(handler));
    return [kept](error_code error, std::size_t bytes) { (*kept)(error, bytes); };
  }

  boost::beast::tcp_stream tcp_;
  std::unique_ptr<TlsSession> tls_;
};

}  // namespace lowp::server
