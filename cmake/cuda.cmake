# CUDA, found by itself. LOWP_CUDA: AUTO (if there is a compiler), ON (an error if there is none), OFF.
# Sets LOWP_HAVE_CUDA.
set(LOWP_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
# Code for the architectures that the project runs. Others can be asked for; `lowp env` says which have never been run.
set(LOWP_CUDA_ARCHITECTURES "90a" CACHE STRING "Compute capabilities to compile kernels for")
set(LOWP_HAVE_CUDA OFF)

if(NOT LOWP_CUDA STREQUAL OFF AND NOT LOWP_SANITIZE)
  find_program(LOWP_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_PATH PATHS /usr/local/cuda/bin)
  if(LOWP_NVCC)
    set(CMAKE_CUDA_COMPILER ${LOWP_NVCC})
    set(CMAKE_CUDA_ARCHITECTURES OFF)  # given to each source below
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.9)
      set(LOWP_HAVE_CUDA ON)
    endif()
  endif()
  if(LOWP_HAVE_CUDA)
    find_package(CUDAToolkit REQUIRED)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know it
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    endif()
    set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
    message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${LOWP_CUDA_ARCHITECTURES}")
  elseif(LOWP_CUDA STREQUAL ON)
    message(FATAL_ERROR "LOWP_CUDA=ON: no CUDA compiler of version 12.9 or newer was found")
  else()
    message(STATUS "No CUDA compiler of version 12.9 or newer: building without CUDA")
  endif()
endif()

# lowp_cuda_sources(target SRCS...): adds kernels and their host code. Spilled registers and serialised matrix
# instructions fail the build; multiplications and additions are never contracted (see NUMERICS.md).
function(lowp_cuda_sources target)
  target_sources(${target} PRIVATE ${ARGN})
  target_link_libraries(${target} PUBLIC CUDA::cudart_static)
  list(JOIN LOWP_CUDA_ARCHITECTURES " " names)
  target_compile_definitions(${target} PRIVATE LOWP_CUDA_ARCHITECTURES="${names}")
  set(options --expt-relaxed-constexpr -fmad=false --compress-mode=size -Werror all-warnings -Xptxas -warn-spills,-Werror
              -Xcompiler -Wall,-Wno-unknown-pragmas)
  foreach(architecture IN LISTS LOWP_CUDA_ARCHITECTURES)
    list(APPEND options -gencode=arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${options}>")
endfunction()
