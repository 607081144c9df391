// An HTTP/1.1 client for many streams at a time on one thread. Boost.Beast is named in http_client.cpp.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "lowp/server/http.h"

namespace lowp::server {

class HttpClient {
 public:
  /// "http://host:port" or "https://host:port"; what follows is put before every path. Throws Error(usage) for another
  /// kind of address, Error(io) if the host is unknown, Error(unsupported) for https in builds without TLS.
  /// `any_certificate`: of an https server; else it must be one for its name that the system believes (tls.h).
  explicit HttpClient(const std::string& url, bool any_certificate = false);
  ~HttpClient();

  struct Reply {
    int status = 0;
    std::string body = {};
    std::string error = {};  // why there is none
  };
  /// Waits for the answer. Not while run() runs.
  Reply request(const std::string& method, const std::string& path, const std::string& body = "",
                const Headers& headers = {});

  using Data = std::function<void(std::string_view bytes)>;
  using End = std::function<void(const Reply& reply)>;
  /// Begins a request: `data` gets the body of the answer as it comes, if its status is 200, `end` its status and,
  /// otherwise, the body or what went wrong.
  void post(const std::string& path, const std::string& body, const Headers& headers, Data data, End end);
  /// Calls `call` in run() when the time has come.
  void at(std::chrono::steady_clock::time_point when, std::function<void()> call);
  /// Until there is nothing left to do.
  void run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lowp::server
