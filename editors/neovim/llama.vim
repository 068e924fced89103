" llama.vim against `gatewise serve RUN`: before the plugin is loaded, in Vim or Neovim.
" Of the two names of the address one is of llama.vim's earlier versions, one of its later ones. The model reads what
" stands before the cursor: pieces of other files (the ring) would only push it out.
let g:llama_config = {
    \ 'endpoint': 'http://127.0.0.1:8080/infill',
    \ 'endpoint_fim': 'http://127.0.0.1:8080/infill',
    \ 'n_prefix': 1024,
    \ 'n_predict': 64,
    \ 't_max_predict_ms': 250,
    \ 'ring_n_chunks': 0,
    \ }
