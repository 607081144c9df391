// Any bytes on a connection get answers that are HTTP and no fault of the server's, or none. The input is sent in two
// parts, the first as long as its first byte says; then the client says that nothing follows, and reads to the end.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "lowp/server/http.h"

using namespace lowp::server;

namespace {

// Streams back what it was sent for /stream, else says at once how much that was.
void answer(const std::shared_ptr<Exchange>& exchange) {
  if (exchange->request().path != "/stream")
    return exchange->send(200, "text/plain", std::to_string(exchange->request().body.size()));
  exchange->begin(200, "text/event-stream");
  exchange->write(exchange->request().body);
  exchange->write("data: [DONE]\n\n");
  exchange->end();
}

std::uint16_t start() {
  auto* server =
      new HttpServer({.port = 0, .header_bytes = 2048, .body_bytes = 4096, .unread_bytes = 8192}, answer);  // for good
  std::thread([server] { server->run(); }).detach();
  return server->port();
}

void send_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return;  // it has heard enough
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  const std::string host = "Host: localhost\r\n";
  return {
      "\x10GET /health HTTP/1.1\r\n" + host + "\r\n",
      "\x05HEAD /a/?b=c#d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
      "\x40POST /stream HTTP/1.1\r\n" + host +
          "Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"a\": [1, 2]}",
      "\x60POST /stream HTTP/1.1\r\n" + host +
          "Transfer-Encoding: chunked\r\n\r\n4;x=\"y\"\r\nabcd\r\n1\r\ne\r\n0\r\nTrailer: z\r\n\r\n",
      "\x70POST / HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
      "\x20GET / HTTP/1.1\r\n" + host + "\r\nGET /stream HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
      "\x30OPTIONS * HTTP/1.1\r\n" + host + "Origin: http://localhost\r\nCookie: a\r\n b\r\nUpgrade: h2c\r\n\r\n",
  };
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::uint16_t port = start();
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t first = std::min<std::size_t>(data[0], input.size());

  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (socket < 0 || ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    std::perror("connect");
    std::abort();
  }
  send_all(socket, input.substr(0, first));
  send_all(socket, input.substr(first));
  ::shutdown(socket, SHUT_WR);
  std::string got;
  char part[4096];
  for (ssize_t n; (n = ::recv(socket, part, sizeof part, 0)) > 0;) got.append(part, static_cast<std::size_t>(n));
  ::close(socket);
  if (got.empty()) return 0;
  const bool http = got.starts_with("HTTP/1.1 ") || got.starts_with("HTTP/1.0 ");
  if (!http || got.size() < 12 || std::string_view("124").find(got[9]) == std::string_view::npos) {
    std::fprintf(stderr, "answered: %s\n", got.c_str());
    std::abort();
  }
  return 0;
}
