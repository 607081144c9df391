// An HTTP/1.1 server, over TLS if it has a certificate: bytes of requests in, bytes of answers out; knows nothing of
// models. Boost.Beast is named in http.cpp and in what it includes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lowp::server {

struct HttpOptions {
  std::string host = "127.0.0.1";           // an address, or localhost
  std::uint16_t port = 8000;                // 0: any free one
  std::string certificates = {}, key = {};  // files for TLS (see TlsContext); plain HTTP without
  std::size_t header_bytes = std::size_t{16} << 10;
  std::size_t body_bytes = std::size_t{8} << 20;
  std::size_t unread_bytes = std::size_t{4} << 20;  // of a stream whose client does not read; then it is cut off
  std::size_t connections = 4096;                   // open at a time
  std::chrono::seconds read_timeout{30};            // for a whole head, a whole body, and between requests
  std::chrono::seconds write_timeout{60};           // without any progress
};

struct HttpRequest {
  std::string method, path, query;  // the path without a trailing slash
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  /// The value of a header by its name in lower case; empty if absent.
  std::string_view header(std::string_view name) const;
};

using Headers = std::vector<std::pair<std::string, std::string>>;

class Connection;

/// A request and the way back to its client. Everything here happens on the server's thread. An exchange that nobody
/// holds any more and that was not answered closes its connection.
class Exchange {
 public:
  Exchange(std::shared_ptr<Connection> connection, HttpRequest request);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  const HttpRequest& request() const { return request_; }
  std::string& body() { return request_.body; }

  /// The whole answer.
  void send(int status, std::string_view content_type, std::string_view body, const Headers& headers = {});
  /// An answer that comes in parts: begin, write any number of times, end.
  void begin(int status, std::string_view content_type, const Headers& headers = {});
  void write(std::string_view bytes);
  void end();

  /// The client has left, or does not read.
  bool gone() const;
  /// Called once when that happens; at once if it has.
  void on_gone(std::function<void()> call);

 private:
  std::shared_ptr<Connection> connection_;
  HttpRequest request_;
  bool answered_ = false;
};

class HttpServer {
 public:
  using Handler = std::function<void(std::shared_ptr<Exchange>)>;
  /// Binds and listens. Throws Error(io) naming the address, Error(usage) for a host that is no address, and what
  /// TlsContext throws.
  HttpServer(HttpOptions options, Handler handler);
  ~HttpServer();

  std::uint16_t port() const;
  /// Serves until stop(); the calling thread is "the server's thread".
  void run();
  /// Runs `call` on the server's thread, in the order of the posts. From any thread.
  void post(std::function<void()> call);
  /// Runs `call` on one of few threads for work that takes its time, and destroys it on the server's. From any thread.
  void background(std::function<void()> call);
  /// Runs `call` on the server's thread every `period`.
  void every(std::chrono::milliseconds period, std::function<void()> call);
  /// Calls `call` on the server's thread at each SIGINT and SIGTERM, which then do not end the process.
  void on_signal(std::function<void(int)> call);
  /// Ends run() once what has been written is on its way. From the server's thread.
  void stop();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace lowp::server
