--[[
DeepFuse as an export target of darktable: exports the selected shots of one scene, fuses them, imports the result
beside the first of them, and groups it with that one. How to install it: README.md in this folder.
]]

local dt = require "darktable"
local NAME = "deepfuse"

dt.preferences.register(NAME, "command", "string", "DeepFuse: command",
  "how to call DeepFuse: deepfuse, or with its folder", "deepfuse")
local align = dt.new_widget("check_button") { label = "hand-held: align the shots", value = false }
local deghost = dt.new_widget("check_button") { label = "people or leaves move: deghost", value = false }

local function quoted(text)
  if dt.configuration.running_os == "windows" then return '"' .. text .. '"' end
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function exists(path)
  local file = io.open(path, "rb")
  return file ~= nil and file:close()
end

-- Returns FOLDER/STEM_fused.SUFFIX, or with a number where that file exists already.
local function free_name(folder, stem, suffix)
  local path, number = folder .. "/" .. stem .. "_fused" .. suffix, 1
  while exists(path) do
    number = number + 1
    path = folder .. "/" .. stem .. "_fused_" .. number .. suffix
  end
  return path
end

local function store(_, image, _, _, number, total)
  dt.print("DeepFuse: exported " .. number .. " of " .. total)
end

local function fuse(_, exported) -- image -> its exported file
  local shots = {}
  for image, file in pairs(exported) do shots[#shots + 1] = { image = image, file = file } end
  if #shots < 2 then return dt.print("DeepFuse: select two or more exposures of one scene") end
  table.sort(shots, function(a, b) return a.image.filename < b.image.filename end)
  local first = shots[1].image
  local out = free_name(first.path, first.filename:gsub("%.%w+$", ""), shots[1].file:match("%.%w+$"))
  local words = { dt.preferences.read(NAME, "command", "string") }
  for _, shot in ipairs(shots) do words[#words + 1] = quoted(shot.file) end
  words[#words + 1] = "-o " .. quoted(out)
  if align.value then words[#words + 1] = "--align homography" end
  if deghost.value then words[#words + 1] = "--deghost" end
  dt.print("DeepFuse: fusing " .. #shots .. " shots")
  local status = dt.control.execute(table.concat(words, " "))
  for _, shot in ipairs(shots) do os.remove(shot.file) end
  if status ~= 0 or not exists(out) then
    return dt.print("DeepFuse: the shots were not fused; its error is in the terminal that started darktable")
  end
  dt.database.import(out):group_with(first)
  dt.print("DeepFuse: " .. out)
end

local function supported(_, format) -- float formats would be radiance maps
  local name = format.plugin_name
  return name == "tiff" or name == "jpeg" or name == "png"
end

dt.register_storage(NAME, "DeepFuse: fuse the exposures", store, fuse, supported, nil,
  dt.new_widget("box") { orientation = "vertical", align, deghost })
