#include "lowp/server/http.h"

#include <sys/resource.h>

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <sstream>

#include "lowp/base/error.h"
#include "lowp/server/wire_stream.h"

namespace lowp::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::size_t kReadAhead = std::size_t{64} << 10;  // of requests that come before an answer is complete
constexpr std::chrono::seconds kLinger{2};

HttpRequest to_request(http::request<http::string_body>&& from) {
  HttpRequest to;
  to.method = std::string(from.method_string());
  const std::string_view target(from.target().data(), from.target().size());
  const std::size_t question = target.find('?');
  to.path = target.substr(0, question);
  if (question != std::string_view::npos) to.query = target.substr(question + 1);
  while (to.path.size() > 1 && to.path.back() == '/') to.path.pop_back();
  for (const auto& field : from) {
    std::string name(field.name_string());
    for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    to.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  to.body = std::move(from.body());
  return to;
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (key == name) return value;
  return {};
}

struct HttpServer::Impl {
  HttpOptions options;
  Handler handler;
  std::unique_ptr<TlsContext> tls;
  std::size_t connections = 0;
  asio::io_context context{1};
  tcp::acceptor acceptor{context};
  asio::signal_set signals{context};
  asio::executor_work_guard<asio::io_context::executor_type> work = asio::make_work_guard(context);
  std::vector<std::unique_ptr<asio::steady_timer>> timers;
  asio::thread_pool workers{2};

  void accept();
  void tick(asio::steady_timer& timer, std::chrono::milliseconds period, const std::function<void()>& call);
  void listen_for_signals(const std::function<void(int)>& call);
};

// One client: reads a request, hands it over, writes the answer, and so on. While an answer is being made it goes on
// reading, to notice that the client leaves; what comes is the beginning of the next request.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(HttpServer::Impl& server, tcp::socket socket)
      : server_(server), stream_(std::move(socket), server.tls.get()) {
    ++server_.connections;
    error_code ignored;
    stream_.tcp().socket().set_option(tcp::no_delay(true), ignored);
  }
  ~Connection() { --server_.connections; }

  void start() {
    if (!stream_.tls()) return read_head();
    stream_.tcp().expires_after(server_.options.read_timeout);
    stream_.tls()->handshake(
        [self = shared_from_this()](error_code error, std::size_t) { error ? self->close() : self->read_head(); });
  }

  // One connection too many. A handshake to say so would cost more than the answer.
  void turn_away() {
    if (stream_.tls()) return close();
    refuse(http::status::service_unavailable,
           R"({"error":{"message":"too many connections","type":"overloaded","param":null,"code":503}})");
  }

  void refuse(http::status status, const char* message) {
    keep_alive_ = false;
    head(static_cast<int>(status), "application/json", {}, std::string_view(message).size());
    queue_ += message;
    finish();
  }

  // ---- the answer, as the exchange gives it
  void send(int status, std::string_view type, std::string_view body, const Headers& headers) {
    head(status, type, headers, body.size());
    if (!is_head_) queue_ += body;
    finish();
  }
  void begin(int status, std::string_view type, const Headers& headers) {
    head(status, type, headers, std::nullopt);
    flush();
  }
  void write(std::string_view bytes) {
    if (gone_ || bytes.empty()) return;
    if (chunked_)
      for (const auto& part : http::make_chunk(asio::const_buffer(bytes.data(), bytes.size())))
        queue_.append(static_cast<const char*>(part.data()), part.size());
    else
      queue_ += bytes;
    if (queue_.size() > server_.options.unread_bytes) return lose();
    flush();
  }
  void end() {
    if (chunked_)
      for (const auto& part : http::make_chunk_last())
        queue_.append(static_cast<const char*>(part.data()), part.size());
    finish();
  }
  void abandon() {
    error_code ignored;
    stream_.tcp().socket().close(ignored);
    gone_ = true;
  }
  bool gone() const { return gone_; }
  void on_gone(std::function<void()> call) {
    if (gone_) return call();
    on_gone_ = std::move(call);
  }

 private:
  void read_head() {
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(server_.options.header_bytes));
    parser_->body_limit(server_.options.body_bytes);
    finished_ = false;
    stream_.tcp().expires_after(server_.options.read_timeout);
    http::async_read_header(stream_, buffer_, *parser_,
                            [self = shared_from_this()](error_code error, std::size_t) { self->on_head(error); });
  }

  void on_head(error_code error) {
    if (error) return on_bad_request(error);
    const auto& request = parser_->get();
    keep_alive_ = request.keep_alive();
    chunks_allowed_ = request.version() >= 11;
    is_head_ = request.method() == http::verb::head;
    if (beast::iequals(request[http::field::expect], "100-continue")) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      asio::async_write(stream_, asio::buffer(kContinue.data(), kContinue.size()),
                        [self = shared_from_this()](error_code e, std::size_t) {
                          if (!e) self->read_body();
                        });
      return;
    }
    read_body();
  }

  void read_body() {
    stream_.tcp().expires_after(server_.options.read_timeout);
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](error_code error, std::size_t) { self->on_request(error); });
  }

  void on_request(error_code error) {
    if (error) return on_bad_request(error);
    auto exchange = std::make_shared<Exchange>(shared_from_this(), to_request(parser_->release()));
    watch();
    server_.handler(std::move(exchange));
  }

  void on_bad_request(error_code error) {
    const auto reply = [&](http::status status, const char* message) { refuse(status, message); };
    if (error == http::error::body_limit)
      return reply(
          http::status::payload_too_large,
          R"({"error":{"message":"the body is too large","type":"invalid_request_error","param":null,"code":413}})");
    if (error == http::error::header_limit || error == http::error::buffer_overflow)
      return reply(
          http::status::request_header_fields_too_large,
          R"({"error":{"message":"the head of the request is too large","type":"invalid_request_error","param":null,"code":431}})");
    if (error.category() == http::make_error_code(http::error::bad_method).category() &&
        error != http::error::end_of_stream && error != http::error::partial_message)
      return reply(
          http::status::bad_request,
          R"({"error":{"message":"the request is not HTTP","type":"invalid_request_error","param":null,"code":400}})");
    close();
  }

  void watch() {
    if (buffer_.size() >= kReadAhead) return;
    watching_ = true;
    stream_.tcp().expires_never();
    stream_.async_read_some(buffer_.prepare(4096), [self = shared_from_this()](error_code error, std::size_t n) {
      self->watching_ = false;
      self->buffer_.commit(n);
      self->input_ended_ = error && error != asio::error::operation_aborted;
      if (self->finished_ && !self->writing_) return self->keep_alive_ ? self->next() : self->linger();
      if (self->input_ended_) return self->lose();
      if (!error) self->watch();
    });
  }

  // The client left, or does not read.
  void lose() {
    if (gone_ || finished_) return;
    gone_ = true;
    queue_.clear();
    close();
    if (const auto call = std::exchange(on_gone_, nullptr)) call();
  }

  void head(int status, std::string_view type, const Headers& headers, std::optional<std::size_t> length) {
    http::response<http::empty_body> response(static_cast<http::status>(status), chunks_allowed_ ? 11 : 10);
    response.set(http::field::server, "lowp");
    if (!type.empty()) response.set(http::field::content_type, beast::string_view(type.data(), type.size()));
    for (const auto& [name, value] : headers) response.set(name, value);
    chunked_ = !length && chunks_allowed_;
    if (length)
      response.content_length(*length);
    else if (chunked_)
      response.chunked(true);
    else
      keep_alive_ = false;
    response.keep_alive(keep_alive_);
    std::ostringstream text;
    text << response.base();
    queue_ += text.str();
  }

  void finish() {
    on_gone_ = nullptr;
    if (gone_) return;
    finished_ = true;
    flush();
  }

  void flush() {
    if (writing_ || gone_) return;
    if (queue_.empty()) {
      if (finished_) answered();
      return;
    }
    writing_ = true;
    sending_.swap(queue_);
    queue_.clear();
    stream_.tcp().expires_after(server_.options.write_timeout);
    asio::async_write(stream_, asio::buffer(sending_), [self = shared_from_this()](error_code error, std::size_t) {
      self->writing_ = false;
      if (error) {
        self->finished_ = false;
        return self->lose();
      }
      self->flush();
    });
  }

  void answered() {
    if (watching_)
      stream_.tcp().cancel();  // next() or linger() follows
    else
      keep_alive_ ? next() : linger();
  }

  void next() {
    if (!stream_.tcp().socket().is_open()) return;
    input_ended_ ? linger() : read_head();  // Asio's read after an end waits for ever
  }

  // Says that nothing follows and reads what still comes for a moment: closing with bytes unread would make the system
  // take back the answer.
  void linger() {
    stream_.tcp().expires_after(kLinger);
    if (stream_.tls())
      stream_.tls()->shut_down([self = shared_from_this()](error_code, std::size_t) { self->linger_on_tcp(); });
    else
      linger_on_tcp();
  }

  void linger_on_tcp() {
    error_code ignored;
    stream_.tcp().socket().shutdown(tcp::socket::shutdown_send, ignored);
    drain();
  }

  void drain() {
    if (input_ended_) return close();
    buffer_.clear();
    stream_.tcp().async_read_some(
        buffer_.prepare(kReadAhead),
        [self = shared_from_this()](error_code error, std::size_t) { error ? self->close() : self->drain(); });
  }

  void close() {
    error_code ignored;
    stream_.tcp().socket().shutdown(tcp::socket::shutdown_both, ignored);
    stream_.tcp().socket().close(ignored);
  }

  HttpServer::Impl& server_;
  WireStream stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  std::string queue_, sending_;  // to be written; being written
  std::function<void()> on_gone_;
  bool keep_alive_ = false, chunks_allowed_ = true, is_head_ = false, chunked_ = false;
  bool watching_ = false, writing_ = false, finished_ = false, gone_ = false, input_ended_ = false;
};

Exchange::Exchange(std::shared_ptr<Connection> connection, HttpRequest request)
    : connection_(std::move(connection)), request_(std::move(request)) {}

Exchange::~Exchange() {
  if (!answered_) connection_->abandon();
}

void Exchange::send(int status, std::string_view type, std::string_view body, const Headers& headers) {
  LOWP_CHECK(!answered_, "a request is answered once");
  answered_ = true;
  connection_->send(status, type, body, headers);
}

void Exchange::begin(int status, std::string_view type, const Headers& headers) {
  connection_->begin(status, type, headers);
}

void Exchange::write(std::string_view bytes) { connection_->write(bytes); }

void Exchange::end() {
  LOWP_CHECK(!answered_, "a request is answered once");
  answered_ = true;
  connection_->end();
}

bool Exchange::gone() const { return connection_->gone(); }

void Exchange::on_gone(std::function<void()> call) { connection_->on_gone(std::move(call)); }

void HttpServer::Impl::accept() {
  acceptor.async_accept([this](error_code error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (error) {  // no descriptors left, say: try again when there may be some
      auto pause = std::make_shared<asio::steady_timer>(context, std::chrono::milliseconds(50));
      pause->async_wait([this, pause](error_code) { accept(); });
      return;
    }
    auto connection = std::make_shared<Connection>(*this, std::move(socket));
    if (connections > options.connections)
      connection->turn_away();
    else
      connection->start();
    accept();
  });
}

void HttpServer::Impl::tick(asio::steady_timer& timer, std::chrono::milliseconds period,
                            const std::function<void()>& call) {
  timer.expires_after(period);
  timer.async_wait([this, &timer, period, call](error_code error) {
    if (error) return;
    call();
    tick(timer, period, call);
  });
}

void HttpServer::Impl::listen_for_signals(const std::function<void(int)>& call) {
  signals.async_wait([this, call](error_code error, int signal) {
    if (error) return;
    call(signal);
    listen_for_signals(call);
  });
}

HttpServer::HttpServer(HttpOptions options, Handler handler) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
  impl_->handler = std::move(handler);
  const HttpOptions& o = impl_->options;
  if (!o.certificates.empty()) impl_->tls = std::make_unique<TlsContext>(o.certificates, o.key);
  error_code error;
  const auto address = asio::ip::make_address(o.host == "localhost" ? "127.0.0.1" : o.host, error);
  if (error) fail(ErrorCode::usage, "host '{}' is not an address such as 127.0.0.1, 0.0.0.0 or ::1", o.host);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  const tcp::endpoint endpoint(address, o.port);
  const auto check = [&](const char* what) {
    if (error) fail(ErrorCode::io, "cannot {} {}:{}: {}", what, o.host, o.port, error.message());
  };
  impl_->acceptor.open(endpoint.protocol(), error);
  check("open");
  impl_->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  impl_->acceptor.bind(endpoint, error);
  check("bind to");
  impl_->acceptor.listen(asio::socket_base::max_listen_connections, error);
  check("listen on");
  impl_->accept();
}

HttpServer::~HttpServer() {
  impl_->workers.stop();
  impl_->workers.join();
}

std::uint16_t HttpServer::port() const { return impl_->acceptor.local_endpoint().port(); }

void HttpServer::run() { impl_->context.run(); }

void HttpServer::post(std::function<void()> call) { asio::post(impl_->context, std::move(call)); }

// What the call holds goes where it came from when it is done: a worker that held an exchange last would end its
// connection.
void HttpServer::background(std::function<void()> call) {
  asio::post(impl_->workers, [this, call = std::move(call)]() mutable {
    call();
    post([held = std::exchange(call, nullptr)] {});
  });
}

void HttpServer::every(std::chrono::milliseconds period, std::function<void()> call) {
  impl_->timers.push_back(std::make_unique<asio::steady_timer>(impl_->context));
  impl_->tick(*impl_->timers.back(), period, call);
}

void HttpServer::on_signal(std::function<void(int)> call) {
  impl_->signals.add(SIGINT);
  impl_->signals.add(SIGTERM);
  impl_->listen_for_signals(call);
}

void HttpServer::stop() {
  error_code ignored;
  impl_->acceptor.close(ignored);
  impl_->work.reset();
  impl_->context.stop();
}

}  // namespace lowp::server
