// Bodies of /v1/chat/completions.
#pragma once

#include "lowp/server/generation_request.h"
#include "lowp/text/chat_template.h"

namespace lowp::server {

/// Throws ApiError: 404 if the model's name is another's, 400 otherwise, also if the model has no chat template or its
/// template refuses the messages.
GenerationRequest read_chat(const Json& body, const ServedModel& model);

/// The messages of a request as templates expect them: content as a text, arguments of calls as objects.
Json read_messages(const Fields& body, bool knows_developer);

}  // namespace lowp::server
