# lowp_library(name SRCS ... DEPS ... TESTS ...): one static library per module, and its unit tests beside the sources.
# DEPS mirror the layers of docs/ARCHITECTURE.md; tools/check_layers.py holds the includes to the same table.
function(lowp_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;TESTS" ${ARGN})
  add_library(lowp_${name} STATIC ${ARG_SRCS})
  target_include_directories(lowp_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(lowp_${name} PUBLIC ${ARG_DEPS})
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
  gtest_discover_tests(test_${name} TEST_PREFIX "${name}." PROPERTIES LABELS ${ARG_LABEL} DISCOVERY_TIMEOUT 60)
endfunction()
