-- gatewise in Neovim: put this file into ~/.config/nvim/lua/, then in init.lua
--
--   require("gatewise").setup({ run = "/path/to/runs/mine" })
--
-- From 0.12 on continuations stand behind the cursor in grey and <Tab> takes them; before, <C-x><C-o> opens a menu.
-- :GatewiseModel RUN takes another run, :GatewiseControl [FILE] sets gates by a JSON file, or no longer.

local M = { settings = {} }
local id
local told -- what is wrong is said once, not for every file

local function command()
  if M.options.cmd then
    return M.options.cmd
  end
  local words = { "gatewise", "lsp" }
  if M.options.server then
    vim.list_extend(words, { "--server", M.options.server })
  else
    table.insert(words, vim.fn.expand(M.options.run or ""))
  end
  return words
end

-- What a person can mend; else nil.
local function wrong(words)
  if vim.fn.executable(words[1]) == 0 then
    return words[1] .. " is not on the path: give setup() cmd = { '/path/to/gatewise', 'lsp', ... }"
  elseif M.options.cmd or M.options.server then
    return nil
  elseif not M.options.run then
    return "setup() wants run = '/path/to/runs/mine', or server = 'http://127.0.0.1:8080'"
  elseif vim.fn.isdirectory(words[3]) == 0 then
    return words[3] .. ": expected a run folder, found none: `gatewise train lm` makes one"
  end
end

local function client()
  return id and vim.lsp.get_client_by_id(id)
end

local function begin()
  local config = {
    name = "gatewise",
    cmd = command(),
    root_dir = vim.fn.getcwd(),
    init_options = M.options.settings,
    on_exit = function()
      id = nil
    end,
  }
  id = vim.lsp.start_client and not vim.lsp.start and vim.lsp.start_client(config)
    or vim.lsp.start(config, { attach = false })
end

local function inline(buffer)
  vim.lsp.inline_completion.enable(true, { bufnr = buffer })
  local function key(lhs, act)
    vim.keymap.set("i", lhs, act, { expr = true, buffer = buffer })
  end
  key(M.options.accept or "<Tab>", function()
    if not vim.lsp.inline_completion.get() then
      return M.options.accept or "<Tab>"
    end
  end)
  key(M.options.next or "<M-]>", function()
    vim.lsp.inline_completion.select({ count = 1 })
  end)
  key(M.options.previous or "<M-[>", function()
    vim.lsp.inline_completion.select({ count = -1 })
  end)
end

function M.attach(buffer)
  if vim.bo[buffer].buftype ~= "" then
    return
  end
  if not client() then
    local line = wrong(command())
    if line and line ~= told then
      vim.schedule(function()
        vim.notify("gatewise: " .. line, vim.log.levels.ERROR)
      end)
    end
    told = line
    if line then
      return
    end
    begin()
  end
  if not id then -- Neovim has said why
    return
  end
  vim.lsp.buf_attach_client(buffer, id)
  if vim.lsp.inline_completion then
    inline(buffer)
  else
    vim.bo[buffer].omnifunc = "v:lua.vim.lsp.omnifunc"
  end
end

-- Whether the server has answered its greeting.
function M.ready()
  local found = client()
  return found ~= nil and found.initialized == true
end

local function execute(name, arguments)
  if not client() then
    vim.notify("gatewise: the language server is not running", vim.log.levels.ERROR)
    return
  end
  local params = { command = name, arguments = arguments }
  local function told(failed, result)
    local line = failed and failed.message or ("gatewise: " .. result.model)
    vim.notify(line, failed and vim.log.levels.ERROR or vim.log.levels.INFO)
  end
  if vim.fn.has("nvim-0.11") == 1 then
    client():request("workspace/executeCommand", params, told)
  else
    client().request("workspace/executeCommand", params, told)
  end
end

function M.setup(options)
  M.options = options
  vim.api.nvim_create_autocmd("FileType", {
    pattern = options.filetypes or "*",
    callback = function(event)
      M.attach(event.buf)
    end,
  })
  vim.api.nvim_create_user_command("GatewiseModel", function(given)
    -- a folder; or, of a server, one of its models
    local run = M.options.server and given.args or vim.fn.fnamemodify(given.args, ":p")
    execute("gatewise.model", { run })
  end, { nargs = 1, complete = "dir" })
  vim.api.nvim_create_user_command("GatewiseControl", function(given)
    execute("gatewise.control", given.args ~= "" and { vim.fn.fnamemodify(given.args, ":p") } or {})
  end, { nargs = "?", complete = "file" })
end

return M
