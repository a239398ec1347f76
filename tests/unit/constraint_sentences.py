"""Sentences that set a standing instruction or preference, and near misses that do not; all invented for this test."""

from __future__ import annotations

from typing import Final

SETS: Final = """
Always show code with syntax highlighting.
I prefer few dependencies.
I'm vegetarian.
Never call me before nine.
From now on, answer in French.
Please don't use emojis.
Call me Ada.
Keep your answers under 100 words.
I'd rather you ask me before changing any file.
I'm allergic to peanuts.
Please always cite your sources.
Don't schedule meetings on Fridays.
Whenever you write Python, add type hints.
Use metric units.
I go by Sam.
My pronouns are they/them.
I don't eat pork.
Never push to main without asking.
Going forward, start every summary with the date.
Could you always round prices to the nearest euro?
Stop apologising so much.
I can't drink milk.
Only suggest books that are available as audiobooks.
I want you to always explain your reasoning first.
Reply in German, please.
No emojis please.
Keep in mind that I'm colour-blind.
Remember that my daughter can't have gluten.
For future reference, I always fly economy.
Please avoid jargon.
In future, please send me only the diff.
I hate long introductions.
I like my coffee black.
My favourite language is Rust.
Use tabs instead of spaces.
I only eat halal.
You must never share my address.
Do not book hotels without breakfast.
I prefer window seats.
We prefer Postgres over MySQL.
I no longer use Facebook.
Actually, I eat fish now.
Call me Bob instead.
I'm not vegan anymore.
Speak Spanish with me from now on.
Be concise.
Keep it short.
Act as my writing coach.
When you answer, please skip the preamble.
Every time you show a table, add a caption.
Each time I send a draft, list the typos first.
Under no circumstances delete a branch.
As a rule, I never work on Sundays.
House rule: no meetings after five.
Please address me as Dr. Lind.
I'm lactose intolerant.
I have a severe nut allergy.
I've got a shellfish allergy.
I'm on a gluten-free diet.
I try to avoid caffeine after noon.
I can't stand olives.
I'm not a fan of horror movies.
I always use dark mode.
I usually take the train rather than fly.
I don't want any marketing e-mails.
Please make sure the code compiles before you show it.
Make sure you never reveal my salary to anyone.
Don't ever suggest that restaurant again.
Please stop suggesting cilantro.
Don't recommend anything over 50 dollars.
Please refer to me by my first name.
Always use the Oxford comma.
Never use the word "synergy".
Write all dates as day, month, year.
Limit your answers to three bullet points.
Your replies should be in plain text.
All responses must be in English.
I need my meals to be low in salt.
I would prefer shorter explanations.
I generally prefer paperbacks.
My preference is for morning appointments.
Don't text me during work hours.
Text me instead of calling.
Please use British spelling.
Please write in the first person.
And never use semicolons.
Also, always add a test.
Oh, and please don't mention my ex.
By the way, I'm vegan.
Hi, I'm Lea and I'm celiac, what can I cook tonight?
I keep kosher, so no shellfish.
We don't eat beef at home.
Never wake me before seven on weekends.
Please never guess; say that you don't know.
If you are unsure, always ask me first.
Any time I paste a log, show only the errors.
Don't use any external libraries.
Avoid using passive voice.
Avoid suggesting anything with mushrooms.
Stick to the standard library.
Stick with vanilla JavaScript.
You should always greet customers by name.
I'd like you to always include a summary at the end.
I want all your answers in bullet points.
Would you mind never using all caps?
Can you please stop calling me sir?
Henceforth address me as Captain.
Don't give me more than three options.
Please only recommend places that are wheelchair accessible.
I exclusively buy second-hand clothes.
I never drink alcohol.
I don't drink.
I don't smoke.
I'm diabetic, so watch the sugar.
Note that I'm always unavailable on Tuesdays.
Don't forget that I'm allergic to latex.
Begin every reply with a one-line summary.
End each message with a question.
Format all code as diffs.
Treat me like a beginner.
Assume I know nothing about statistics.
Explain things to me like I'm five.
Be blunt with me.
Please be more formal.
I like it when you give examples.
I love it when explanations come with a picture.
I want my reports on Monday mornings.
Always double-check the arithmetic.
Never commit secrets.
Don't touch the migrations folder.
Please remember to use my maiden name.
I prefer tea to coffee.
I prefer not to be contacted by phone.
I'd prefer you didn't use my surname.
For all future questions, assume Python 3.12.
No more small talk.
No jargon, please.
Use Celsius.
Answer only with yes or no.
Just call me Max.
You can call me Nina.
Nenn mich bitte Jo.
Ab jetzt bitte nur noch auf Deutsch.
Bitte antworte immer kurz.
Ich bin Vegetarierin.
Ich esse kein Schweinefleisch.
Bitte keine Emojis.
Ruf mich nie vor neun an.
Ich bevorzuge Züge.
Appelle-moi Zoé.
Je suis végétarienne.
Désormais, réponds en français.
N'utilise jamais d'émojis.
Je préfère les réponses courtes.
Je ne mange pas de viande.
Llámame Paco.
Soy vegana.
De ahora en adelante responde en español.
Prefiero respuestas cortas.
No me llames antes de las nueve.
Nunca uses emojis.
No como carne.
Every answer should begin with the key figure.
Please refrain from giving medical advice.
I'd like all prices in Swiss francs.
From here on out, treat me as an expert.
From today on please write shorter mails.
Never ask me for my password.
Always put the units next to the number.
Don't show me spoilers.
I'm pescatarian.
I have a gluten intolerance.
I can't eat shellfish.
My name is Tomas.
Please call me by my last name.
Refer to me as Professor Okafor.
Whenever I mention my boss, keep it neutral.
Every time you recommend a book, say how long it is.
I prefer to be contacted by letter.
I'd much rather you were honest than kind.
Do not use bold text.
Answer in Italian from now on.
Make your explanations shorter.
Keep all responses in lower case.
Your summaries must not exceed three lines.
Never include greetings.
Please stop adding comments to my code.
No more than two questions at a time, please.
I'm strictly vegan.
We're vegetarian, so please skip the meat.
I don't drink coffee.
I try to keep my evenings free.
I usually pay in cash.
My preferred airline is Finnair.
I can't stand background music.
I don't like being called sweetheart.
I hate getting calls on Sundays.
Use snake_case for variable names.
Use the 24-hour clock.
Only use primary sources.
Always assume the reader is a child.
As a rule, send the invoice first.
You must ask before deleting anything.
Please make sure all examples run.
Remember I only have a microwave.
Don't forget I'm left-handed.
I need everything in writing.
Switch to English, please.
Talk to me like a pirate.
You are my Spanish tutor.
I want short answers only.
Please be brief.
Don't ever quote me without permission.
I never fly with hand luggage only.
I no longer work with Excel.
Actually, call me Robbie.
I'm not vegetarian any more.
In future, please write my name with a z.
Avoid sugar in all recipes.
Please write code without comments.
Skip the explanations and just give me the code.
Give me the short version every time.
Bitte duze mich.
Nenn mich Max.
Verwende keine Abkürzungen.
Ich bin allergisch gegen Nüsse.
Ne m'appelle pas avant neuf heures.
Réponds-moi en anglais.
Je suis allergique aux noix.
Responde siempre en inglés.
Soy alérgico a los cacahuetes.
Prefiero que me escribas.
Please double-space every letter you write for me.
I'd like to be addressed formally.
No phone calls after eight, please.
Always list ingredients first.
Never round the figures.
Don't use contractions.
I follow a keto diet.
I've been vegan for two years.
I get migraines from red wine, so never suggest it.
Going forward, leave out the weather.
I strongly prefer trains.
I'd rather have bullet points.
Stop asking me whether I'm sure.
Whenever you quote someone, name the page.
Each time you suggest a film, give the year.
Only speak Dutch to me.
From now on I want the totals in dollars.
Can you always start with the conclusion?
Could you please never mention politics?
Remember my knees are bad.
Keep in mind we are on a tight budget.
I don't want you to soften criticism.
Please do not contact my office.
You should never use my full name.
Do all conversions to metric.
My assistant's name is Kim, send invites to her.
I hate cilantro.
I usually skip breakfast.
I mostly listen to audiobooks.
Replies must be under fifty words.
Schreib mir bitte immer auf Englisch.
Ich trinke keinen Alkohol.
Ne propose jamais de fruits de mer.
Prefiero el tren.
I'm no longer vegetarian.
I switched to decaf, so no regular coffee.
Sign every mail with my initials.
Please be patient and explain each step.
Use simple words.
Give sources for every claim.
""".strip().splitlines()

NEAR_MISSES: Final = """
I always wanted to see the northern lights.
Never mind, I found it.
I've never been to Japan.
My deadline is on Friday.
My sister is vegetarian.
Do you prefer tea or coffee?
Are you vegetarian?
Call me when you get home.
Call me back later.
She told me to always be careful.
It never rains in summer here.
You never know.
Never heard of it.
Always a pleasure talking to you.
I used to be vegan.
I was allergic to cats as a child.
If I were vegetarian, I'd miss bacon.
Don't worry about it.
Please don't hesitate to write.
Don't get me wrong, it was fun.
Can you show me the code?
Please write a poem about the sea.
Use the table below to answer question 3.
What should I cook tonight?
They call me the night owl at work, which is funny.
He always forgets my birthday.
We always have fun together.
I never thought I'd see you again.
Never give up on your dreams!
You can always count on me.
I'll always remember that day.
From now on things will get better.
From now on I'm going to run every day.
I'm going to be more careful from now on.
Remember when we went to the lake?
Do you remember my name?
I remember that my mother sang.
Keep in touch!
Keep up the good work.
Keep going, you're nearly there.
Make a list of ten animals.
Please translate this sentence.
Please find the report attached.
Please help me with my essay.
I ate too much, I can't eat another bite.
I don't eat much at breakfast because I'm rarely hungry then.
I can't drink and drive, obviously.
Whenever I hear that song I cry.
Every time I go there it rains.
Whenever you're ready.
Is it always this cold?
Why do you always say that?
Did you call me yesterday?
I called him before nine.
What is the rule for commas?
The rule of thumb is to save ten percent.
My name came up in the meeting.
Everyone has a preference.
The preferred stock fell by two percent.
It was the first time I used Python.
The doctor said I should not lift anything heavy this week.
My boss prefers short emails.
The team decided never to use that vendor again.
The manual says you must not open the case.
I stopped by the bakery.
Stop, you're making me laugh!
Don't you think it's too late?
Don't cry.
Don't be sad, it will pass.
Please be careful out there.
Please come in.
Be yourself.
Be right back.
Only two people came.
Only you could say that.
I only slept four hours.
No thanks.
No problem at all.
No more than ten people came.
No one called.
The app should always show the clock.
The server must never go down.
How do I make sure the door is locked?
I made sure to lock it.
I need to be at the airport at six.
I need your help.
I want to learn French.
I want you to meet my brother.
I'd like to book a table for two.
I'd like a coffee.
I like you.
I love hiking.
I hate to say it, but you were right.
I hate that I missed it.
I would rather not say.
We spoke in German all evening.
She answered in French.
How do you say cheese in German?
Can you speak German?
Is the vegan option any good?
The vegan cake was a success.
I made a vegetarian lasagne for my guests.
Vegetarian restaurants are rare here.
My son has a peanut allergy test tomorrow.
Allergy season is the worst.
What is a nut allergy?
Are peanuts a common allergy?
I met a woman who goes by Sam.
His name is Bob.
What's your name?
I changed my name in May.
The code never compiles on Mondays.
The tests always pass on my machine.
I use Python at work.
I used tabs instead of spaces by accident.
We use Postgres.
Which is better, tabs or spaces?
I switched the lights off.
I moved to Lisbon in May.
I start work at nine.
My meeting is at nine.
The meeting was moved to Friday.
I have a dentist appointment on Tuesday.
Wake up!
Act now and save ten percent.
He acts as if nothing happened.
The act was great.
You are a good friend.
You are an inspiration to us all.
You should see the new museum.
You should really try the soup.
You must be tired.
You must have seen it.
Avoid the highway today, there is an accident.
In the future, cars will fly.
I wonder what the future holds.
Going forward was hard for the hikers.
Please, tell me what happened!
Make sure to have fun!
Note to self.
Mind the gap.
Give me three ideas for a party.
Suggest a title for my blog.
Explain photosynthesis.
Show me yesterday's numbers.
Summarise the article above.
Write a function that adds two numbers.
Ich war noch nie in Rom.
Meine Schwester ist Vegetarierin.
Wie immer war es schön.
Ruf mich an, wenn du da bist.
Was isst du lieber, Reis oder Nudeln?
Je ne sais pas.
Ma sœur est végétarienne.
Appelle-moi demain.
C'est toujours la même chose.
No sé qué decir.
Mi hermana es vegetariana.
Llámame cuando llegues.
Siempre llueve aquí.
Nunca he estado en Roma.
Never in my life have I been so tired.
He prefers tea.
Did they always do that?
My neighbour is allergic to bees.
I prefer... hmm, let me think.
Please let me know.
Please tell me more about it.
Call me if anything changes.
We always meet on Mondays.
I always cry at weddings.
I never liked that film.
The best thing is to always be prepared.
My teacher always said to never give up.
Don't miss it!
Don't forget your umbrella.
Do not enter, it said on the door.
Remember the time we got lost?
Make sure you rest.
From now on the shop opens at ten.
It's going to be different from now on.
Every time she calls, I'm out.
I want pizza.
I hate Mondays.
I can't eat any more.
I don't drink and drive.
You are so kind.
You must try this place.
You should never have done that.
Only time will tell.
Use this link to join.
Use your imagination!
Can you call me a taxi?
What do vegetarians eat?
Is she still vegan?
I read an article in German.
Write me a story in Spanish about a fox.
Give me a recipe without eggs.
Keep me posted.
Keep your chin up.
Answer the following questions.
Respond to this e-mail for me.
No way!
No, I don't think so.
The rule changed last year.
We avoided the traffic.
Stop it!
I'm used to it.
I go by bus.
My name day is in June.
Always look on the bright side.
I'm intolerant of rudeness, I guess.
Nie wieder Krieg war ihr Motto.
Je n'ai jamais vu ça.
Nunca digas nunca.
Siempre me pasa lo mismo.
I don't want to talk about it.
Please be quiet.
My favourite, as you know, left the band.
She's lactose intolerant.
I never said that.
Never have I ever seen such a mess.
You always say the nicest things.
Don't let him win.
Don't leave without saying goodbye.
I want to be called back.
Do you always eat lunch at noon?
I can't drink this, it's too hot.
He wants me to always be on time.
When you write the report, did you use the new template?
Every answer was wrong.
All responses were recorded.
Those who prefer silence should stay home.
I'd rather be fishing.
Use by the end of May.
What do you prefer?
Please call the bank.
I called her Ada for years.
A vegan friend is visiting.
The allergy got worse.
Let's stick together.
Stop by any time.
Only then did I notice.
Remember to breathe.
It's good to keep in mind.
Try to smile!
""".strip().splitlines()
