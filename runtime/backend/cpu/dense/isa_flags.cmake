# Per-file instruction sets of the dense kernels and of the other loops: run-time dispatch picks among them, so only these
# files may use instructions above the baseline.
set(dense_dir ${CMAKE_CURRENT_LIST_DIR})
get_filename_component(loops_dir ${dense_dir} DIRECTORY)
set(avx2 -mavx2 -mfma -mf16c)
if(VOXLAB_EMULATE_AVX512)
  # Nothing passes such vectors between files, so their place in calls (-Wpsabi) is nobody's concern. Beyond -O1 the
  # compiler takes minutes for each file of these.
  set(avx512 ${avx2} -DVOXLAB_EMULATE_AVX512 -Wno-psabi -O1)
  set(avx512_bf16 ${avx512} -DVOXLAB_EMULATE_AVX512_BF16)
  set(emulated_tiles ${avx512} -O3)  # their products are loops, and few enough
  target_compile_definitions(voxlab_backend_cpu PRIVATE VOXLAB_EMULATED_LEVELS)
else()
  set(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl ${avx2} -mprefer-vector-width=512)
  set(avx512_bf16 ${avx512} -mavx512bf16)
  set(emulated_tiles ${avx512})
endif()
set(amx -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mamx-tile -mamx-bf16 ${avx2} -mprefer-vector-width=512)

function(voxlab_isa_files flags)
  set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "${flags}")
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  voxlab_isa_files("${avx2}" ${dense_dir}/kernels_avx2.cpp ${loops_dir}/loops_avx2.cpp)
  voxlab_isa_files("${avx512}" ${dense_dir}/kernels_avx512.cpp ${loops_dir}/loops_avx512.cpp)
  voxlab_isa_files("${emulated_tiles}" ${dense_dir}/kernels_amx_emulated.cpp ${loops_dir}/attention_amx_emulated.cpp)
  voxlab_isa_files("${avx512_bf16}" ${dense_dir}/kernels_avx512_bf16.cpp ${dense_dir}/pairs_avx512_bf16.cpp
                   ${loops_dir}/loops_avx512_bf16.cpp)
  voxlab_isa_files("${amx}" ${dense_dir}/kernels_amx.cpp ${loops_dir}/attention_amx.cpp)
else()
  list(FILTER voxlab_backend_cpu_sources EXCLUDE REGEX "(dense/(kernels_(avx2|avx512|avx512_bf16|amx|amx_emulated)|pairs_avx512_bf16)|attention_amx(_emulated)?)\\.cpp$")
endif()
