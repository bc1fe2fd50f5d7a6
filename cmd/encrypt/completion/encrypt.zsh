#compdef encrypt
# encrypt completion zsh
_encrypt() {
	local -a answers
	answers=(${(f)"$(encrypt completion -- "${(@)words[2,CURRENT-1]}" 2>/dev/null)"})
	if (( ${answers[(Ie):file]} )); then
		_files
	fi
	compadd -- ${answers:#:file}
}
if [[ $funcstack[1] == _encrypt ]]; then
	_encrypt "$@"
else
	compdef _encrypt encrypt
fi
