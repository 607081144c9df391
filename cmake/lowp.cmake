# Headers that most sources include: parsing them takes longer than compiling what is ours.
set(LOWP_COMMON_HEADERS <algorithm> <array> <cmath> <cstdint> <cstring> <filesystem> <functional> <map> <memory> <optional>
    <set> <span> <string> <string_view> <utility> <vector> <fmt/format.h> <nlohmann/json.hpp>)

# lowp_parse_once(target HEADERS...): precompiles headers, once for all targets that name the same ones.
function(lowp_parse_once target)
  string(SHA1 key "${ARGN}")
  get_property(owner GLOBAL PROPERTY lowp_headers_${key})
  if(owner)
    target_precompile_headers(${target} REUSE_FROM ${owner})
  else()
    target_precompile_headers(${target} PRIVATE ${ARGN})
    set_property(GLOBAL PROPERTY lowp_headers_${key} ${target})
  endif()
endfunction()

# lowp_compile_in_batches(target): eight sources at a time are compiled as one, because most of a compilation is the same
# templates (JSON, formatting, containers) for each. So names in unnamed namespaces are unique in a module. The preset dev
# compiles each source alone and parses its headers anew, which finds a missing include.
function(lowp_compile_in_batches target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${LOWP_BATCHES} UNITY_BUILD_BATCH_SIZE 8)
endfunction()

# lowp_library(name SRCS ... DEPS ... TESTS ... [OWN_FLAGS]): one static library per module, and its unit tests beside the
# sources. OWN_FLAGS: sources have compile options of their own, so they share neither parsed headers nor a compilation.
# DEPS mirror the layers of docs/ARCHITECTURE.md; tools/check_layers.py holds the includes to the same table.
function(lowp_library name)
  cmake_parse_arguments(ARG "OWN_FLAGS" "" "SRCS;DEPS;TESTS" ${ARGN})
  add_library(lowp_${name} STATIC ${ARG_SRCS})
  target_include_directories(lowp_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(lowp_${name} PUBLIC ${ARG_DEPS})
  if(NOT ARG_OWN_FLAGS)
    lowp_parse_once(lowp_${name} ${LOWP_COMMON_HEADERS})
    lowp_compile_in_batches(lowp_${name})
  endif()
  if(LOWP_TESTS AND ARG_TESTS)
    lowp_test(${name} SRCS ${ARG_TESTS} DEPS lowp_${name})
  endif()
endfunction()

# lowp_test(name SRCS ... DEPS ... [LABEL unit]): a GoogleTest binary, one ctest entry per case.
function(lowp_test name)
  cmake_parse_arguments(ARG "" "LABEL" "SRCS;DEPS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  add_executable(test_${name} ${ARG_SRCS})
  target_link_libraries(test_${name} PRIVATE ${ARG_DEPS} GTest::gtest_main)
  target_compile_definitions(test_${name} PRIVATE LOWP_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_compile_options(test_${name} PRIVATE -Wno-dangling-else)  # GoogleTest's macros under a plain if
  target_compile_options(test_${name} PRIVATE $<$<CONFIG:Release>:-O1>)  # compiling them takes longer than running
  lowp_parse_once(test_${name} ${LOWP_COMMON_HEADERS} <gtest/gtest.h>)
  gtest_discover_tests(test_${name} TEST_PREFIX "${name}." PROPERTIES LABELS ${ARG_LABEL} DISCOVERY_TIMEOUT 60)
endfunction()
