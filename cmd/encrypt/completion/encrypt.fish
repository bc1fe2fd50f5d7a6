# encrypt completion fish
function __encrypt_answers
	set -l before (commandline -opc)
	for answer in (encrypt completion -- $before[2..-1] 2>/dev/null)
		if test $answer = :file
			__fish_complete_path (commandline -ct)
		else
			echo $answer
		end
	end
end
complete -c encrypt -f -a '(__encrypt_answers)'
