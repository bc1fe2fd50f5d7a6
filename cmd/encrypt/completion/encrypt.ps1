# encrypt completion powershell
Register-ArgumentCompleter -Native -CommandName encrypt, encrypt.exe -ScriptBlock {
    param($typed, $line, $cursor)
    $before = @($line.CommandElements | Select-Object -Skip 1 |
        Where-Object { $_.Extent.EndOffset -lt $cursor } | ForEach-Object { $_.Extent.Text })
    foreach ($answer in @(encrypt completion -- $before 2>$null)) {
        if ($answer -eq ':file') {
            [System.Management.Automation.CompletionCompleters]::CompleteFilename($typed)
        }
        elseif ($answer.StartsWith($typed)) {
            [System.Management.Automation.CompletionResult]::new($answer)
        }
    }
}
