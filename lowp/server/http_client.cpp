#include "lowp/server/http_client.h"

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <limits>
#include <optional>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/json.h"
#include "lowp/server/wire_stream.h"

namespace lowp::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

beast::string_view view(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

// The server, and the connections to it that are open between requests.
struct ClientHost {
  asio::io_context context{1};
  std::string name;
  tcp::resolver::results_type endpoints;
  std::optional<TlsContext> tls;
  std::vector<std::unique_ptr<WireStream>> idle;

  std::unique_ptr<WireStream> stream() {
    return std::make_unique<WireStream>(tcp::socket(context), tls ? &*tls : nullptr, name);
  }
};

// One request and its answer.
class ClientRequest : public std::enable_shared_from_this<ClientRequest> {
 public:
  ClientRequest(ClientHost& host, http::request<http::string_body> request, HttpClient::Data data, HttpClient::End end)
      : host_(host), request_(std::move(request)), data_(std::move(data)), end_(std::move(end)) {}

  void start() {
    parser_.emplace();
    parser_->body_limit(std::numeric_limits<std::uint64_t>::max());
    if (!host_.idle.empty() && !fresh_) {
      stream_ = std::move(host_.idle.back());
      host_.idle.pop_back();
      reused_ = true;
      return write();
    }
    reused_ = false;
    stream_ = host_.stream();
    stream_->tcp().async_connect(host_.endpoints, [self = shared_from_this()](error_code error, const tcp::endpoint&) {
      if (error) return self->fail(error);
      error_code ignored;
      self->stream_->tcp().socket().set_option(tcp::no_delay(true), ignored);
      self->shake_hands();
    });
  }

 private:
  void shake_hands() {
    if (!stream_->tls()) return write();
    stream_->tls()->handshake([self = shared_from_this()](error_code error, std::size_t) {
      if (error) return self->fail(error);
      self->write();
    });
  }

  void write() {
    http::async_write(*stream_, request_, [self = shared_from_this()](error_code error, std::size_t) {
      if (error) return self->fail(error);
      self->read();
    });
  }

  void read() {
    http::async_read_some(*stream_, buffer_, *parser_, [self = shared_from_this()](error_code error, std::size_t) {
      if (error && error != http::error::need_buffer) return self->fail(error);
      self->received();
    });
  }

  void received() {
    std::string& body = parser_->get().body();
    const bool streams = parser_->is_header_done() && parser_->get().result_int() == 200 && data_;
    if (streams && !body.empty()) {
      data_(body);
      body.clear();
    }
    if (!parser_->is_done()) return read();
    const HttpClient::Reply reply{.status = static_cast<int>(parser_->get().result_int()), .body = std::move(body)};
    if (parser_->keep_alive()) host_.idle.push_back(std::move(stream_));
    end_(reply);
  }

  void fail(error_code error) {
    if (reused_ && !parser_->got_some()) {  // the server has closed it since: once more on a new one
      fresh_ = true;
      buffer_.clear();
      return start();
    }
    end_({.error = error.message()});
  }

  ClientHost& host_;
  std::unique_ptr<WireStream> stream_;
  http::request<http::string_body> request_;
  std::optional<http::response_parser<http::string_body>> parser_;
  beast::flat_buffer buffer_;
  const HttpClient::Data data_;
  const HttpClient::End end_;
  bool reused_ = false, fresh_ = false;
};

struct HttpClient::Impl {
  ClientHost host;
  std::string authority, prefix;  // what is said to be the host; what is put before every path
};

HttpClient::HttpClient(const std::string& url, bool any_certificate) : impl_(std::make_unique<Impl>()) {
  const bool secure = url.starts_with("https://");
  if (!secure && !url.starts_with("http://"))
    fail(ErrorCode::usage, "{} is not an address such as http://127.0.0.1:8000", quote(url));
  std::string rest = url.substr(url.find("//") + 2);
  if (const std::size_t slash = rest.find('/'); slash != std::string::npos) {
    impl_->prefix = rest.substr(slash);
    while (impl_->prefix.ends_with('/')) impl_->prefix.pop_back();
    rest.resize(slash);
  }
  impl_->authority = rest;
  const std::size_t colon = rest.rfind(':');
  const bool has_port = colon != std::string::npos && rest.find(']', colon) == std::string::npos;
  std::string name = has_port ? rest.substr(0, colon) : rest;
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  ClientHost& host = impl_->host;
  host.name = name;
  if (secure) host.tls.emplace(any_certificate);
  tcp::resolver resolver(host.context);
  error_code error;
  host.endpoints = resolver.resolve(name, has_port ? rest.substr(colon + 1) : secure ? "443" : "80", error);
  if (error) lowp::fail(ErrorCode::io, "{}: {}", url, error.message());
}

HttpClient::~HttpClient() = default;

namespace {

http::request<http::string_body> make_request(const std::string& host, http::verb verb, const std::string& target,
                                              const std::string& body, const Headers& headers) {
  http::request<http::string_body> request(verb, view(target), 11);
  request.set(http::field::host, view(host));
  request.set(http::field::user_agent, "lowp");
  if (!body.empty()) request.set(http::field::content_type, "application/json");
  for (const auto& [name, value] : headers) request.set(view(name), view(value));
  request.body() = body;
  request.prepare_payload();
  return request;
}

}  // namespace

HttpClient::Reply HttpClient::request(const std::string& method, const std::string& path, const std::string& body,
                                      const Headers& headers) {
  Reply reply;
  std::make_shared<ClientRequest>(
      impl_->host,
      make_request(impl_->authority, http::string_to_verb(view(method)), impl_->prefix + path, body, headers), nullptr,
      [&](const Reply& got) { reply = got; })
      ->start();
  run();
  return reply;
}

void HttpClient::post(const std::string& path, const std::string& body, const Headers& headers, Data data, End end) {
  std::make_shared<ClientRequest>(impl_->host,
                                  make_request(impl_->authority, http::verb::post, impl_->prefix + path, body, headers),
                                  std::move(data), std::move(end))
      ->start();
}

void HttpClient::at(std::chrono::steady_clock::time_point when, std::function<void()> call) {
  auto timer = std::make_shared<asio::steady_timer>(impl_->host.context, when);
  timer->async_wait([timer, call = std::move(call)](error_code) { call(); });
}

void HttpClient::run() {
  impl_->host.context.restart();
  impl_->host.context.run();
}

}  // namespace lowp::server
