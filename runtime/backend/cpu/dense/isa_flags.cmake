# Per-file instruction sets of the dense kernels and of the other loops: run-time dispatch picks among them, so only these
# files may use instructions above the baseline.
set(dense_dir ${CMAKE_CURRENT_LIST_DIR})
get_filename_component(loops_dir ${dense_dir} DIRECTORY)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(${dense_dir}/kernels_avx2.cpp ${loops_dir}/loops_avx2.cpp PROPERTIES
    COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  set_source_files_properties(${dense_dir}/kernels_avx512.cpp ${dense_dir}/kernels_amx_emulated.cpp
    ${loops_dir}/loops_avx512.cpp ${loops_dir}/attention_amx_emulated.cpp PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx2;-mfma;-mf16c;-mprefer-vector-width=512")
  set_source_files_properties(${dense_dir}/kernels_avx512_bf16.cpp ${dense_dir}/pairs_avx512_bf16.cpp
    ${loops_dir}/loops_avx512_bf16.cpp PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512bf16;-mavx2;-mfma;-mf16c;-mprefer-vector-width=512")
  set_source_files_properties(${dense_dir}/kernels_amx.cpp ${loops_dir}/attention_amx.cpp PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512bf16;-mamx-tile;-mamx-bf16;-mavx2;-mfma;-mf16c;-mprefer-vector-width=512")
else()
  list(FILTER voxlab_backend_cpu_sources EXCLUDE REGEX "(dense/(kernels_(avx2|avx512|avx512_bf16|amx|amx_emulated)|pairs_avx512_bf16)|attention_amx(_emulated)?)\\.cpp$")
endif()
