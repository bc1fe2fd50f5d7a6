# What a careful author would write today: age -d for each SECRET_*.
#
#	bash age.sh IDENTITY OUT AGE
set -e
for variable in "${!SECRET_@}"; do
	value=$(base64 -d <<<"${!variable}" | "$3" -d -i "$1")
	export "${variable#SECRET_}=$value"
done
export -p >"$2" # as the agent reads what a shell hook has set
