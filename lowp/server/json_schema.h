// A JSON schema as a grammar of the texts that a model may write.
#pragma once

#include "lowp/base/json.h"
#include "lowp/server/grammar.h"

namespace lowp::server {

/// Texts of JSON that the schema accepts; not all of them: members come in the order of the schema, those that it does
/// not name are left out, white space is short. Keywords that cannot be kept to are refused, none is passed over.
/// Throws ApiError 400 naming the keyword and its place, and for a schema beyond the limits of size and depth.
/// `where`: the path of the schema in the request.
Grammar json_grammar(const Json& schema, const std::string& where);

/// Any JSON object.
Grammar any_object_grammar();

}  // namespace lowp::server
