// What a client is told that did something wrong, in OpenAI's form.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "lowp/base/json.h"

namespace lowp::server {

/// Becomes {"error": {"message", "type", "param", "code"}} with this HTTP status. Texts name fields and limits, never
/// paths or addresses.
class ApiError : public std::runtime_error {
 public:
  ApiError(int status, std::string type, std::string message, std::string param = "")
      : std::runtime_error(std::move(message)), status_(status), type_(std::move(type)), param_(std::move(param)) {}

  int status() const { return status_; }
  const std::string& type() const { return type_; }
  std::vector<std::pair<std::string, std::string>> headers() const {
    if (status_ == 429 || status_ == 503) return {{"Retry-After", "1"}};
    if (status_ == 401) return {{"WWW-Authenticate", "Bearer"}};
    return {};
  }
  std::string body() const {
    const Json error = {{"message", what()},
                        {"type", type_},
                        {"param", param_.empty() ? Json(nullptr) : Json(param_)},
                        {"code", status_}};
    return Json({{"error", error}}).dump();
  }

 private:
  int status_;
  std::string type_, param_;
};

/// 400, naming the field at fault.
inline ApiError bad_request(const std::string& message, const std::string& param = "") {
  return {400, "invalid_request_error", message, param};
}

}  // namespace lowp::server
