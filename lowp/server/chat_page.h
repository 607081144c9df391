// The page at "/": chat_page.html, put into the binary by CMake.
#pragma once

#include <string_view>

namespace lowp::server {

extern const std::string_view kChatPage;

}  // namespace lowp::server
