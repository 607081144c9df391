// From the input's dtype at run time to a template argument.
#pragma once

#include <type_traits>

#include "lowp/formats/element.h"

namespace lowp::kernels::cuda {

/// Calls body(std::integral_constant<Elem, input>) for f16, bf16 or f32.
template <class Body>
void for_input(formats::Elem input, const Body& body) {
  using formats::Elem;
  if (input == Elem::bf16)
    body(std::integral_constant<Elem, Elem::bf16>());
  else if (input == Elem::f16)
    body(std::integral_constant<Elem, Elem::f16>());
  else
    body(std::integral_constant<Elem, Elem::f32>());
}

}  // namespace lowp::kernels::cuda
