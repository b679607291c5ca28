/*
 * `lodge completion`: prints a shell's completion script. The scripts know nothing of verbs and
 * options; they ask `lodge complete`, which reads the tables, so they never grow old. They ask
 * the program that is being completed ($1), which need not be in $PATH.
 */
#include "cli/verbs.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <string.h>

static const char bash_script[] =
	"# bash completion for lodge: source this file, or put it in\n"
	"# /usr/share/bash-completion/completions/lodge\n"
	"_lodge()\n"
	"{\n"
	"	local lodge=${1/#\\~/$HOME} words=() lines=() value word glue= i prefix\n"
	"\n"
	"	# Bash takes words apart at = and :, Lodge wants them as they were typed.\n"
	"	for ((i = 1; i <= COMP_CWORD; i++)); do\n"
	"		word=${COMP_WORDS[i]}\n"
	"		if [[ ${#words[@]} -gt 0 && ( $glue || $word == [=:] ) ]]; then\n"
	"			words[${#words[@]} - 1]+=$word\n"
	"		else\n"
	"			words+=(\"$word\")\n"
	"		fi\n"
	"		glue=\n"
	"		[[ $word == [=:] ]] && glue=1\n"
	"	done\n"
	"	value=${words[${#words[@]} - 1]}\n"
	"	mapfile -t lines < <(\"$lodge\" complete -- \"${words[@]}\" 2>/dev/null)\n"
	"	[[ $value == --*=* ]] && prefix=${value%%=*}= value=${value#*=}\n"
	"	[[ $COMP_WORDBREAKS == *=* ]] && prefix=\n"
	"	COMPREPLY=()\n"
	"	case ${lines[0]} in\n"
	"	files)\n"
	"		compopt -o filenames 2>/dev/null\n"
	"		mapfile -t COMPREPLY < <(compgen -f -- \"${value##*:}\")\n"
	"		return ;;\n"
	"	directories)\n"
	"		compopt -o filenames 2>/dev/null\n"
	"		mapfile -t COMPREPLY < <(compgen -d -- \"${value##*:}\")\n"
	"		return ;;\n"
	"	guests) mapfile -t lines < <(\"$lodge\" ls -aq 2>/dev/null) ;;\n"
	"	images) mapfile -t lines < <(\"$lodge\" image ls -q 2>/dev/null) ;;\n"
	"	networks) mapfile -t lines < <(\"$lodge\" network ls -q 2>/dev/null) ;;\n"
	"	volumes) mapfile -t lines < <(\"$lodge\" volume ls -q 2>/dev/null) ;;\n"
	"	*) lines=(\"${lines[@]:1}\") ;;\n"
	"	esac\n"
	"	for word in \"${lines[@]}\"; do\n"
	"		word=${word%%$'\\t'*}\n"
	"		[[ -n $word && $word == \"$value\"* ]] || continue\n"
	"		# What stands before the last : is on the line already.\n"
	"		if [[ $COMP_WORDBREAKS == *:* && $value == *:* ]]; then\n"
	"			word=${word#\"${value%\"${value##*:}\"}\"}\n"
	"		fi\n"
	"		COMPREPLY+=(\"$prefix$word\")\n"
	"	done\n"
	"}\n"
	"complete -F _lodge lodge\n";

static const char zsh_script[] =
	"#compdef lodge\n"
	"# zsh completion for lodge: as _lodge in a directory of $fpath, or source it after "
	"compinit\n"
	"_lodge()\n"
	"{\n"
	"	local lodge=${(Q)words[1]/#\\~/$HOME} kind line\n"
	"	local -a typed lines names\n"
	"\n"
	"	typed=(\"${(@Q)words[2,CURRENT-1]}\" \"${(Q)PREFIX}\")\n"
	"	(( CURRENT == 2 )) && typed=(\"${(Q)PREFIX}\")\n"
	"	lines=(\"${(@f)$($lodge complete -- \"${typed[@]}\" 2>/dev/null)}\")\n"
	"	kind=$lines[1]\n"
	"	shift lines\n"
	"	[[ $PREFIX == --*=* ]] && compset -P '*='\n"
	"	case $kind in\n"
	"	files) _files ;;\n"
	"	directories) _files -/ ;;\n"
	"	guests) names=(${(f)\"$($lodge ls -aq 2>/dev/null)\"}); compadd -a names ;;\n"
	"	images) names=(${(f)\"$($lodge image ls -q 2>/dev/null)\"}); compadd -a names ;;\n"
	"	networks) names=(${(f)\"$($lodge network ls -q 2>/dev/null)\"}); compadd -a names "
	";;\n"
	"	volumes) names=(${(f)\"$($lodge volume ls -q 2>/dev/null)\"}); compadd -a names "
	";;\n"
	"	words)\n"
	"		for line in $lines; do\n"
	"			names+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\")\n"
	"		done\n"
	"		_describe -V lodge names ;;\n"
	"	esac\n"
	"}\n"
	"if [[ $funcstack[1] == _lodge ]]; then\n"
	"	_lodge \"$@\"\n"
	"else\n"
	"	compdef _lodge lodge\n"
	"fi\n";

static const struct {
	const char *shell, *script;
} scripts[] = {
	{"bash", bash_script},
	{"zsh", zsh_script},
};

static int completion_run(struct invocation *inv, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		if (strcmp(inv->operands[0], scripts[i].shell) == 0) {
			fputs(scripts[i].script, stdout);
			return 0;
		}
	}
	return error_set(err, EINVAL, "there is completion for bash and zsh, not for '%s'",
			 inv->operands[0]);
}

const struct verb verb_completion = {
	.name = "completion",
	.section = VERB_HOST,
	.synopsis = "bash|zsh",
	.summary = "print a shell's completion script",
	.description =
		"Prints a script that makes the shell complete `lodge` with the Tab key: verbs, "
		"options and their values, files, and the names of guests and images that exist at "
		"that moment.\n\n"
		"The script asks `lodge` itself, so it needs no renewal when Lodge is upgraded. "
		"Packages install it; by hand it goes into the shell's start-up file.",
	.examples = "In `~/.bashrc`:\n\n"
		    "    source <(lodge completion bash)\n\n"
		    "In `~/.zshrc`, after compinit:\n\n"
		    "    source <(lodge completion zsh)",
	.min_operands = 1,
	.max_operands = 1,
	.operands = {COMPLETE_WORDS},
	.operand_words = (const char *const[]){"bash", "zsh", NULL},
	.run = completion_run,
};
