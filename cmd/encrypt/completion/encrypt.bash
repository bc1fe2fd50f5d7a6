# encrypt completion bash
_encrypt() {
	local answer typed=${COMP_WORDS[COMP_CWORD]}
	[[ $typed == = ]] && typed=
	COMPREPLY=()
	while IFS= read -r answer; do
		if [[ $answer == :file ]]; then
			compopt -o default 2>/dev/null # readline's own, for want of others
		elif [[ $answer == "$typed"* && ($answer != -* || $typed == -*) ]]; then
			COMPREPLY+=("$answer")
		fi
	done < <(encrypt completion -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
}
complete -F _encrypt encrypt
