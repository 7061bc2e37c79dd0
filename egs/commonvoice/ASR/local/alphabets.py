"""The letters of languages, and what else belongs to their words; to be edited and added to.

Languages are named as CommonVoice names them. One that is not here has the letters of every script:
nothing but digits and symbols is then outside of its alphabet. An edit makes stage 1 run again.
"""

LATIN = "abcdefghijklmnopqrstuvwxyz"

# Small letters. Those that names and loan words bring along are there where they are usual.
LETTERS = {
    "be": "абвгдеёжзійклмнопрстуўфхцчшыьэюя",
    "bg": "абвгдежзийклмнопрстуфхцчшщъьюяѝ",
    "br": LATIN + "âêîôûùüñéè",
    "ca": LATIN + "àçèéíïñòóúü",
    "cs": LATIN + "áčďéěíňóřšťúůýž",
    "cy": LATIN + "áàâäéèêëíìîïóòôöúùûüẃẁŵẅýỳŷÿ",
    "da": LATIN + "æøåéäöü",
    "de": LATIN + "äöüßéàèê",
    "el": "αβγδεζηθικλμνξοπρστυφχψωςάέήίόύώϊϋΐΰ",
    "en": LATIN,
    "eo": LATIN + "ĉĝĥĵŝŭ",
    "es": LATIN + "áéíñóúü",
    "et": LATIN + "äöõüšž",
    "eu": LATIN + "ñçü",
    "fi": LATIN + "åäöšžé",
    "fr": LATIN + "àâæçéèêëîïñôœùûüÿ",
    "fy-NL": LATIN + "âäéêëïôöúûü",
    "ga-IE": LATIN + "áéíóú",
    "gl": LATIN + "áéíïñóúü",
    "hu": LATIN + "áéíóöőúüű",
    "it": LATIN + "àáèéìíîòóùú",
    "kmr": LATIN + "çêîşû",
    "lt": LATIN + "ąčęėįšųūž",
    "lv": LATIN + "āčēģīķļņšūž",
    "mt": LATIN + "ċġħżàèìòù",
    "nl": LATIN + "áàâäçéèêëíìîïñóòôöúùûü",
    "nn-NO": LATIN + "æøåàéèêòóôäöü",
    "pl": LATIN + "ąćęłńóśźżéüö",
    "pt": LATIN + "áàâãçéêíóôõúü",
    "ro": LATIN + "ăâîșțéö",
    "ru": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
    "rw": LATIN,
    "sk": LATIN + "áäčďéíĺľňóôŕšťúýž",
    "sl": LATIN + "čšžćđ",
    "sv-SE": LATIN + "åäöéàáèêëïüæø",
    "tr": "abcçdefgğhıijklmnoöpqrsştuüvwxyzâîû",
    "uk": "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя",
}
LETTERS["sv"] = LETTERS["sv-SE"]  # as others name it
LETTERS["nb-NO"] = LETTERS["nn-NO"]

# Apostrophes at the ends of words are quotation marks, save in these (in small letters).
BEGINNINGS = {
    "cy": "'r 'n 'i 'w 'u 'm 'th 'ch 'na 'ma 'di 'sa 'da 'dw 'dyn 'dych 'nôl",
    "en": "'tis 'twas 'twill 'em 'til 'cause 'bout 'round 'n",
    "fy-NL": "'t 'k 's 'n",
    "nl": "'s 't 'n 'k 'm 'r",
}
ENDINGS = {
    "en": "an' o' th' ol'",
    "it": "po' mo' be' di' da' fa' sta' va' to' ca' vo' de' ne' co' a'",
    "mt": "ta' ma' sa' jista' tista' nista' jisma' tisma' nisma' sema' qata' qala' seba' disa'",
}
# Here "the dogs' tails" ends a word as well, where no quotation was opened before.
GENITIVES = ("en",)

# A dot in the middle of a word, between two of this letter: col·legi.
MIDDLE_DOT = {"ca": "l"}

# Languages whose i keeps its dot as a capital, and whose ı has none.
DOTTED = ("tr", "az", "crh", "gag")

# Languages whose letters join, or stay apart, by U+200C and U+200D, which nobody sees.
JOINING = "as bn ckb dv fa gu hi kn ml mr my ne ne-NP or pa pa-IN ps sa sat sd si skr ta te ug ur"

# Look-alikes that tables mix up with a language's own letters.
REPLACED = {
    "ro": {"ş": "ș", "ţ": "ț"},
    "ru": {"ë": "ё"},
    "uk": {"ï": "ї"},
}

# Latin capitals that keyboards slip into Cyrillic words, as in "первoe", and what is meant.
TWINS = dict(zip("ABCEHIKMOPTXY", "АВСЕНІКМОРТХУ", strict=True))
CYRILLIC = ("be", "bg", "ru", "uk")
